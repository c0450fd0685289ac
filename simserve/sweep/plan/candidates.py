"""What could serve the model at all: hardware and parallelism, without those that cannot by memory or by physics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simserve.config import EngineOptions
from simserve.errors import ConfigError, SimServeError
from simserve.hardware import HardwareProfile, list_hardware, load_hardware
from simserve.models import ModelSpec, load_model
from simserve.simulation.setup import EngineSetup, prepare
from simserve.sweep.money import price_of
from simserve.sweep.plan.question import Question
from simserve.sweep.settings import Settings, Value
from simserve.sweep.slo import Term

USUAL_SIZES = (1, 2, 4, 8)
KINDS = ("gpu", "npu", "tpu")
"""Of hardware that is tried where nobody says which."""


@dataclass(frozen=True)
class Candidate:
    """One way to run one replica."""

    hardware: str
    tensor_parallel_size: int
    quantization: str | None
    usd_per_hour: float | None
    """Of one replica; None where no price is known."""

    def settings(self, question: Question, replicas: int = 1) -> dict[str, Value]:
        found: dict[str, Value] = {"model": question.model, "hardware": self.hardware}
        if self.tensor_parallel_size > 1:
            found["tensor_parallel_size"] = self.tensor_parallel_size
        if self.quantization is not None:
            found["quantization"] = self.quantization
        if replicas > 1:
            found |= {"replicas": replicas, "router": "least-requests"}
        return {**found, **question.engine}

    def __str__(self) -> str:
        devices = f"{self.tensor_parallel_size} x " if self.tensor_parallel_size > 1 else ""
        return f"{devices}{self.hardware}{f' {self.quantization}' if self.quantization else ''}"


@dataclass(frozen=True)
class Excluded:
    """What was not simulated, and why; ``bound_ms`` is the least that physics allows for the term it misses."""

    candidate: Candidate
    because: str
    term: Term | None = None
    bound_ms: float | None = None


def candidates_for(question: Question) -> tuple[list[Candidate], list[Excluded]]:
    """Those to be simulated, and those that cannot be. Raises :class:`ConfigError` for hardware without a profile."""
    model = load_model(question.model)
    good: list[Candidate] = []
    excluded: list[Excluded] = []
    for profile in _profiles(question):
        for quantization in question.quantizations:
            for size in question.tensor_parallel_sizes or USUAL_SIZES:
                price = price_of(profile.name, question.prices)
                candidate = Candidate(profile.name, size, quantization, None if price is None else price * size)
                why_not = _why_not(candidate, question, model, profile)
                if why_not is None:
                    good.append(candidate)
                else:
                    excluded.append(why_not)
    return good, excluded


def tpot_bound_s(setup: EngineSetup) -> float:
    """The least time of a step: each active weight is read once, from all devices at their peak bandwidth."""
    model = setup.model
    active = setup.weight_bytes * model.active_parameters / model.num_parameters
    return active / setup.hardware.bandwidth_bytes_per_s


def _profiles(question: Question) -> Iterator[HardwareProfile]:
    names = question.hardware or tuple(list_hardware())
    for name in names:
        profile = load_hardware(name)
        if question.hardware or profile.kind in KINDS:
            yield profile


def _why_not(candidate: Candidate, question: Question, model: ModelSpec, profile: HardwareProfile) -> Excluded | None:
    if candidate.tensor_parallel_size > question.most_devices:
        return Excluded(candidate, f"it has more than the {question.most_devices} devices that may be used")
    cost, budget = candidate.usd_per_hour, question.budget_usd_per_hour
    if budget is not None and (cost is None or cost > budget):
        known = "no price is known" if cost is None else f"it costs {cost:,.2f} USD/h"
        return Excluded(candidate, f"{known} and the budget is {budget:,.2f} USD/h")
    try:
        setup = prepare(model, profile, _options(candidate, question.engine))
    except SimServeError as error:
        return Excluded(candidate, str(error))
    bound_ms = tpot_bound_s(setup) * 1e3
    for term in question.slo.terms:
        if term.metric in ("TPOT", "ITL") and bound_ms > term.limit_ms:
            why = f"reading the weights once takes {bound_ms:.1f} ms, more than {term} allows"
            return Excluded(candidate, why, term, bound_ms)
    return None


def _options(candidate: Candidate, engine: Settings) -> EngineOptions:
    known = {name: value for name, value in engine.items() if name in EngineOptions.__dataclass_fields__}
    given = {"tensor_parallel_size": candidate.tensor_parallel_size, "quantization": candidate.quantization}
    try:
        return EngineOptions(**{**known, **{name: one for name, one in given.items() if one is not None}})  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(f"the engine's options cannot be read: {error}") from None
