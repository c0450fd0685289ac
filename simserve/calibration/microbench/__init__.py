"""Measures the machine it runs on, with torch, and makes a hardware profile of it; ``calibrate`` runs it all.

``bench`` times cases in turn with a ``stopwatch`` while ``contention`` watches who else is there; ``machine`` is what
is measured, ``operands`` what it works on. Suites: ``products``, ``bandwidth``, ``attention``, ``small_operators``,
``collective``, ``whole_steps`` in the ``engine``, and its ``host``. ``build`` turns what came out into a profile.
"""
