"""From measurements of single operations to the efficiency curves of a hardware profile, and how far they hold.

``importers`` read others' tables into ``points``; ``complete`` fills what was not measured from its neighbours;
``fit_*`` turn points into curves; ``shipped`` says which tables stand behind which profile; ``holdout`` fits on
half and tests on the rest; ``build`` writes the ``calibration:`` of the shipped profiles.
"""
