"""HardwareProfile: what one accelerator can do at best by its data sheet, and how close software comes."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from simserve.errors import HardwareError
from simserve.hardware.curves import Calibration
from simserve.hardware.parts import Dtype, Part

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Link(Part):
    """A connection between devices, or from a device to its host."""

    name: str
    bandwidth_bytes_per_s: Positive
    """Of one device, in one direction."""
    max_devices: Annotated[int, Field(ge=2)] | None = None
    """How many devices it joins at most (2 for an NVLink bridge); null where a whole server is joined."""


class Power(Part):
    """Electrical power of one device in watts; null where nothing is published."""

    peak_w: Positive
    idle_w: Positive | None = None


OWN_PRICE = "as given"
"""Source of a price that the user pays."""


class Price(Part):
    """What one device costs to rent. Prices move: ``date`` and ``source`` belong to the figure."""

    usd_per_hour: Positive
    date: date
    source: Annotated[str, Field(min_length=1)]


class Efficiency(Part):
    """Fraction of the bound an operator is assumed to reach on a device that was never measured."""

    gemm_compute: Fraction = 0.70
    gemm_memory: Fraction = 0.80
    attention_prefill: Fraction = 0.45
    attention_decode: Fraction = 0.65
    uncertainty: Fraction = 0.36
    prefill_uncertainty: Fraction = 0.49
    decode_uncertainty: Fraction = 0.84
    """Relative half-widths of times predicted from these assumptions, of matrix products and both kinds of attention:
    medians over the measured devices, of which :mod:`simserve.calibration.transfer` prints each."""


class HardwareProfile(Part):
    """One accelerator. Peaks are dense (no sparsity) and, for floating point, with float32 accumulation."""

    name: str
    aliases: tuple[str, ...] = ()
    vendor: str
    kind: Literal["gpu", "npu", "tpu", "cpu"]
    memory_bytes: Annotated[int, Field(ge=1)]
    reported_memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """What the driver reports as the device's whole memory, less than nominal; null where unknown."""
    bandwidth_bytes_per_s: Positive
    peak_flops: Annotated[dict[Dtype, Positive], Field(min_length=1)]
    """FLOP/s (operations per second for int8) by dtype."""
    l2_bytes: Annotated[int, Field(ge=1)] | None = None
    """The last cache before memory; null where unpublished."""
    compute_units: Annotated[int, Field(ge=1)] | None = None
    """Streaming multiprocessors, compute units, tensor cores or CPU cores, as the vendor counts."""
    link: Link | None = None
    """Between devices, the fastest one."""
    host_link: Link | None = None
    """To the host, and between the devices that ``link`` does not join."""
    power: Power | None = None
    price: Price | None = None
    host_time_factor: Positive = 1.0
    """Time that the host needs around a step, relative to the servers that it was published of; more for slow CPUs."""
    sources: Annotated[str, Field(min_length=1)]
    confidence: Literal["high", "medium", "low"]
    default_efficiency: Efficiency = Efficiency()
    calibration: Calibration | None = None

    @property
    def calibrated(self) -> bool:
        """Whether matrix products and decode attention, which make up most of a step, rest on measurements."""
        calibration = self.calibration
        return calibration is not None and None not in (calibration.gemm, calibration.decode_attention)

    def peak_flops_for(self, dtype: str) -> float:
        """Peak FLOP/s in ``dtype``; raises :class:`HardwareError` naming the dtypes the profile states."""
        for known, peak in self.peak_flops.items():
            if known == dtype:
                return peak
        raise HardwareError(f"{self.name} has no peak for {dtype}: choose one of {', '.join(self.peak_flops)}")

    def link_between(self, devices: int) -> Link:
        """The link that joins ``devices`` of this kind; raises :class:`HardwareError` where none does."""
        if self.link and (self.link.max_devices is None or devices <= self.link.max_devices):
            return self.link
        if self.host_link is None:
            raise HardwareError(f"{self.name} has no link that joins {devices} devices: use fewer per replica")
        return self.host_link

    def priced(self, usd_per_hour: float | None) -> HardwareProfile:
        """The same device at the price that its user pays; None keeps what the profile says."""
        if usd_per_hour is None:
            return self
        if not 0 < usd_per_hour < float("inf"):
            raise HardwareError(f"{usd_per_hour:g} USD per hour is no price of {self.name}: give more than 0")
        own = Price(usd_per_hour=usd_per_hour, date=date.today(), source=OWN_PRICE)
        return self.model_copy(update={"price": own})

    def with_overrides(self, memory_bytes: int | None = None) -> HardwareProfile:
        """The same device with another memory size; None keeps what the profile says."""
        if memory_bytes is None:
            return self
        if memory_bytes < 1:
            raise HardwareError(f"memory_bytes of {self.name} must be at least 1, not {memory_bytes}")
        return self.model_copy(update={"memory_bytes": memory_bytes, "reported_memory_bytes": memory_bytes})
