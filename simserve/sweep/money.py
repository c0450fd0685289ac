"""What the hardware of a run costs, by its profile's dated price."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from simserve.errors import SimServeError
from simserve.hardware import HardwareProfile, load_hardware
from simserve.metrics.result import Result
from simserve.sweep.settings import Settings

SECONDS_PER_HOUR = 3600.0


def devices_of(settings: Settings) -> int:
    """Devices of all replicas together."""
    count = 1
    for names in (
        ("tensor_parallel_size", "npu_num"),
        ("pipeline_parallel_size",),
        ("data_parallel_size",),
        ("replicas",),
    ):
        given = [settings[name] for name in names if settings.get(name) is not None]
        count *= int(given[0]) if given else 1  # type: ignore[arg-type]
    return count


def cost(settings: Settings, result: Result | None) -> dict[str, float | None]:
    """USD per hour, and per million output tokens at the rate of ``result``; None where no price is known."""
    per_hour = price_of(str(settings.get("hardware")))
    if per_hour is None:
        return {"usd_per_hour": None, "usd_per_million_output_tokens": None}
    per_hour *= devices_of(settings)
    tokens_per_s = float(result["output_throughput"] or 0.0) if result else 0.0
    per_million = per_hour / SECONDS_PER_HOUR / tokens_per_s * 1e6 if tokens_per_s else None
    return {"usd_per_hour": per_hour, "usd_per_million_output_tokens": per_million}


@lru_cache
def profile_of(name: str) -> HardwareProfile | None:
    """The profile, None if there is none of that name."""
    try:
        return load_hardware(name)
    except SimServeError:
        return None


def price_of(name: str, prices: Mapping[str, float] = MappingProxyType({})) -> float | None:
    """USD per hour of one device: what ``prices`` say, else the profile; None where neither does."""
    profile = profile_of(name)
    if profile is not None and profile.name in prices:
        return prices[profile.name]
    return profile.price.usd_per_hour if profile and profile.price else None
