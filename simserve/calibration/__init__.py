"""Profiles from measurements, and predictions held against what real servers did.

``importers`` read others' tables into ``points``; ``complete`` fills what was not measured from its neighbours;
``fit_*`` turn points into curves; ``shipped`` says which tables stand behind which profile; ``holdout`` fits on
half and tests on the rest, ``transfer`` tests curves on other devices; ``build`` writes the ``calibration:`` of the
shipped profiles. ``measured_run`` reads what a server did, ``compare`` holds the simulation of the same requests
against it, and ``distributions`` draws both. ``import_profile`` and ``tables`` make a profile of a user's own tables;
``roofline`` draws one.

``microbench/`` measures the machine it runs on and makes a profile of it; ``engine_check/`` holds the simulation
against the torch engine, step by step. torch is imported where it is used, never with a module.
"""
