"""What goes from device to device beside all-reduces: from stage to stage, and from tokens to their experts.

Nobody measured these here: a latency that is assumed, and the bandwidth that the data sheet states for the link.
"""

from __future__ import annotations

from simserve.hardware import HardwareProfile
from simserve.latency.communication import UNMEASURED_LATENCY_S
from simserve.latency.lines import Floats

LINK_UNCERTAINTY = 0.5
"""Relative half-width that such times are given: between the published all-to-all kernels and what their links carry at
best there is a factor of up to two."""


def send_s(hardware: HardwareProfile, devices: int, message_bytes: Floats) -> Floats:
    """Seconds from one device to another for each of ``message_bytes``, over the link that joins ``devices``.

    An all-to-all in which each device sends so many bytes takes as long: all send at once, each over its own link.
    Raises :class:`simserve.errors.HardwareError` where no link joins so many.
    """
    bandwidth = hardware.link_between(devices).bandwidth_bytes_per_s
    seconds: Floats = UNMEASURED_LATENCY_S + message_bytes / bandwidth
    return seconds
