"""Several seeds as one figure with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t at 97.5 % for 1, 2, ... 15 degrees of freedom."""
T_MORE = ((20, 2.086), (30, 2.042), (60, 2.000), (120, 1.980))
NORMAL_975 = 1.960


def student_t(degrees: int) -> float:
    """The 97.5 % point of Student's t distribution; between the tabled degrees of freedom that of the fewer."""
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    fewer = [t for most, t in T_MORE if most <= degrees]
    return NORMAL_975 if degrees > 1000 else (fewer[-1] if fewer else T_975[-1])


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and how far the 95 % confidence interval of it reaches to either side; NaN for a single value."""
    if len(values) < 2:
        return fmean(values), math.nan
    return fmean(values), student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
