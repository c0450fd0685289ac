"""How long the all-reduces of tensor parallelism take: a ring over the link, at the measured efficiency."""

from __future__ import annotations

import numpy as np

from simserve.hardware import Curves, HardwareProfile
from simserve.latency.lines import Floats

UNMEASURED_LATENCY_S = 10e-6
"""Of a small all-reduce, where none was measured."""


def all_reduce_s(hardware: HardwareProfile, devices: int, message_bytes: Floats) -> Floats:
    """Seconds of one all-reduce among ``devices`` for each of ``message_bytes``.

    In a ring each device sends 2 (devices - 1) / devices of the message over its link. Raises
    :class:`simserve.errors.HardwareError` where no link joins so many devices.
    """
    if devices == 1:
        return np.zeros_like(message_bytes)
    link = hardware.link_between(devices).bandwidth_bytes_per_s
    bound_s = message_bytes * (2 * (devices - 1) / devices) / link
    curves = hardware.calibration.all_reduce if hardware.calibration else None
    if not isinstance(curves, Curves):
        return UNMEASURED_LATENCY_S + bound_s
    measured = np.array(curves.columns)
    nearest = min(curves.row_numbers(), key=lambda key: abs(key[0] - devices))[0]
    efficiency = np.array(curves.rows[str(nearest)])
    bound_nodes = measured * (2 * (devices - 1) / devices) / link
    nodes = np.maximum.accumulate((curves.launch_s + bound_nodes) / efficiency)
    beyond = (curves.launch_s + bound_s) / efficiency[-1]
    seconds: Floats = np.where(message_bytes > measured[-1], beyond, np.interp(message_bytes, measured, nodes))
    return seconds
