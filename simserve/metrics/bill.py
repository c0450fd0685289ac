"""What a run takes from the socket and from the purse: power from the roofline, money from a dated price.

A device draws, while a step runs, idle + (peak - idle) x load, and idle power otherwise (Fan, Weber and Barroso, "Power
provisioning for a warehouse-sized computer", 2007). Load is 0.4 x its share of the memory bandwidth + 2 x its share of
the peak FLOP/s, at most 1, which was chosen to agree with what is published: an H100 SXM draws some 300 of 700 W for a
batch of one, at most of its bandwidth, and 600 W for 128 (ML.ENERGY's benchmark, as others quote it); prompts reach the
peak, answers do not (Patel et al., "Characterizing power management opportunities for LLMs in the cloud", 2024). None
of our devices was measured, hence the wide band. Hosts, network and cooling are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simserve.metrics.records import RunDescription, RunTotals

BANDWIDTH_WEIGHT = 0.4
COMPUTE_WEIGHT = 2.0

IDLE_FRACTION = 0.12
"""Of the peak, where a profile knows no idle power: 0.05 at the least, and 0.25 at the most."""

LEAST_IDLE_FRACTION, MOST_IDLE_FRACTION = 0.05, 0.25

LOAD_UNCERTAINTY = 0.3
"""Relative: load may be so much less or more."""

J_PER_WH = 3600.0
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Bill:
    """Energy in Wh with its band, and USD; None where a profile knows no power, or nobody a price.

    ``device_hours`` are those that were taken, idle ones included.
    """

    device_hours: float
    energy_wh: float | None
    energy_wh_low: float | None
    energy_wh_high: float | None
    cost_usd: float | None


def full_load_s(totals: RunTotals, description: RunDescription) -> float:
    """For how long a device at full load would draw what those of this run drew above idle: at most ``busy_s``."""
    decodes = _loaded_s(
        totals.busy_s - totals.mixed_busy_s,
        totals.flops - totals.mixed_flops,
        totals.bytes_moved - totals.mixed_bytes_moved,
        description,
    )
    return decodes + _loaded_s(totals.mixed_busy_s, totals.mixed_flops, totals.mixed_bytes_moved, description)


def bill_of(totals: RunTotals, description: RunDescription, taken_s: float) -> Bill:
    """Of replicas whose devices were taken for ``taken_s`` in all, and did together what ``totals`` say."""
    return bill_for(description, taken_s, totals.busy_s, full_load_s(totals, description))


def bill_for(description: RunDescription, taken_s: float, busy_s: float, full_s: float) -> Bill:
    """Of ``taken_s`` seconds of all devices of a replica, with steps in ``busy_s``, worth ``full_s`` at full load."""
    devices, idle_w, peak_w, price = (
        description.devices, description.idle_w, description.peak_w, description.usd_per_hour
    )  # fmt: skip
    hours = devices * taken_s / SECONDS_PER_HOUR
    cost_usd = None if price is None else hours * price
    if peak_w is None:
        return Bill(hours, None, None, None, cost_usd)

    def energy_wh(idle_fraction: float, load: float) -> float:
        idle = peak_w * idle_fraction if idle_w is None else idle_w
        loaded_s = min(busy_s, taken_s, full_s * load)  # a pipeline's steps overlap
        return devices * (idle * taken_s + (peak_w - idle) * loaded_s) / J_PER_WH

    return Bill(
        hours,
        energy_wh(IDLE_FRACTION, 1.0),
        energy_wh(LEAST_IDLE_FRACTION, 1.0 - LOAD_UNCERTAINTY),
        energy_wh(MOST_IDLE_FRACTION, 1.0 + LOAD_UNCERTAINTY),
        cost_usd,
    )


def sum_of(bills: Iterable[Bill]) -> Bill:
    """Of all together; what one of them does not know, nobody knows of all."""
    rows = [(each.device_hours, each.energy_wh, each.energy_wh_low, each.energy_wh_high, each.cost_usd)
            for each in bills]  # fmt: skip
    hours, *others = ([*column] for column in zip(*rows, strict=True)) if rows else ([], [], [], [], [])
    known = (None if None in column else float(sum(column)) for column in others)
    return Bill(float(sum(hours)), *known)


def bill_keys(bill: Bill, requests: int, tokens: tuple[int, int]) -> dict[str, float | None]:
    """``bill`` for JSON, in all and for each of ``requests`` and ``tokens`` (of prompts, of answers)."""
    inputs, outputs = tokens
    return {
        "device_hours": bill.device_hours,
        "energy_wh": bill.energy_wh,
        "energy_wh_low": bill.energy_wh_low,
        "energy_wh_high": bill.energy_wh_high,
        "wh_per_request": _each(bill.energy_wh, requests),
        "joules_per_output_token": _each(bill.energy_wh, outputs, J_PER_WH),
        "joules_per_token": _each(bill.energy_wh, inputs + outputs, J_PER_WH),
        "cost_usd": bill.cost_usd,
        "usd_per_million_tokens": _each(bill.cost_usd, inputs + outputs, 1e6),
        "usd_per_million_output_tokens": _each(bill.cost_usd, outputs, 1e6),
    }


def bill_lines(keys: dict[str, float | None], descriptions: Iterable[RunDescription]) -> list[tuple[str, str]]:
    """``keys`` for a terminal, with where they come from."""
    known = list(descriptions)
    lines = [("energy", "unknown: the profile has no power")]
    if keys["energy_wh"] is not None:
        idle = "" if all(each.idle_w for each in known) else f"; idle power assumed {IDLE_FRACTION:.0%} of the peak"
        lines = [
            (
                "energy",
                f"{keys['energy_wh']:,.2f} ({keys['energy_wh_low']:,.2f}–{keys['energy_wh_high']:,.2f}) Wh of the"
                f" devices, uncalibrated{idle}",
            ),
            ("", f"{_text(keys['wh_per_request'])} Wh per request, {_text(keys['joules_per_output_token'])} J per"
                 " output token"),
        ]  # fmt: skip
    if keys["cost_usd"] is None:
        return [*lines, ("cost", "unknown: the profile has no price; give --price-per-hour")]
    sources = " and ".join(sorted({str(each.price_source) for each in known}))
    return [
        *lines,
        ("cost", f"{keys['cost_usd']:,.4f} USD for {keys['device_hours']:,.3f} device hours ({sources})"),
        ("", f"{_text(keys['usd_per_million_output_tokens'])} USD per million output tokens,"
             f" {_text(keys['usd_per_million_tokens'])} in and out"),
    ]  # fmt: skip


def _loaded_s(busy_s: float, flops: float, bytes_moved: float, description: RunDescription) -> float:
    bandwidth_s = BANDWIDTH_WEIGHT * bytes_moved / description.peak_bandwidth_bytes_per_s
    return max(0.0, min(busy_s, bandwidth_s + COMPUTE_WEIGHT * flops / description.peak_flops))


def _each(whole: float | None, count: int, times: float = 1.0) -> float | None:
    return None if whole is None or not count else whole * times / count


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3g}"
