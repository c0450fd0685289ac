"""Hardware profiles: what one accelerator can do at best by its data sheet, and how close software comes.

A profile is one YAML file in ``hardware_profiles/``; to describe a device that is not shipped, copy one and give
its path. ``profile`` is what a file holds, ``curves`` its calibration, ``anchors`` what ``simserve calibrate`` adds of
whole steps; ``catalog`` finds and reads files; ``uncertainty`` says how far off times predicted from one may be.
"""

from __future__ import annotations

from simserve.hardware.anchors import Conditions, HostTimes, MixedStep, StepAnchors
from simserve.hardware.catalog import list_hardware, load_hardware
from simserve.hardware.curves import Calibration, Curves, Derived, MixedCurves, PrefillCurves, Rates
from simserve.hardware.held_out import HeldOut
from simserve.hardware.parts import Dtype
from simserve.hardware.profile import OWN_PRICE, Efficiency, HardwareProfile, Link, Power, Price
from simserve.hardware.uncertainty import Carried, at_the_edge, slowed, stated_uncertainty, uncertainty_of

__all__ = [
    "OWN_PRICE",
    "Calibration",
    "Carried",
    "Conditions",
    "Curves",
    "Derived",
    "Dtype",
    "Efficiency",
    "HardwareProfile",
    "HeldOut",
    "HostTimes",
    "Link",
    "MixedCurves",
    "MixedStep",
    "Power",
    "PrefillCurves",
    "Price",
    "Rates",
    "StepAnchors",
    "at_the_edge",
    "list_hardware",
    "load_hardware",
    "slowed",
    "stated_uncertainty",
    "uncertainty_of",
]
