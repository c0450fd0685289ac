"""What is asked: a model, its traffic, limits on latencies, and what may be used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from simserve.errors import ConfigError
from simserve.sweep.settings import Settings, Value
from simserve.sweep.slo import Slo

LEAST_REQUESTS = 1000
REQUESTS_OF_A_USER = 4
SECONDS_OF_TRAFFIC = 60.0
MOST_REQUESTS = 20_000
"""How long a run is: enough requests for a p99, and for queues to grow where they would."""

USUAL_TPOT_S = 0.03
"""For how long an answer takes, where the SLO does not say."""


@dataclass(frozen=True)
class Question:
    """``traffic`` and ``engine`` are settings of ``simserve simulate`` that hold for every candidate.

    The load is ``users`` who each wait for an answer, or ``request_rate`` per second, or, with neither, a trace as it
    is (``rate_scale`` 1). ``budget_usd_per_hour`` and ``most_devices`` bound what may be used.
    """

    model: str
    slo: Slo
    traffic: Settings
    users: int | None = None
    request_rate: float | None = None
    hardware: tuple[str, ...] = ()
    tensor_parallel_sizes: tuple[int, ...] = ()
    quantizations: tuple[str | None, ...] = (None,)
    engine: Settings = field(default_factory=dict)
    budget_usd_per_hour: float | None = None
    most_devices: int = 256
    prices: Mapping[str, float] = field(default_factory=dict)
    """USD per hour of a device, in place of the profile's."""
    answer_tokens: float = 128.0
    """Of an answer on average."""

    def __post_init__(self) -> None:
        if self.users is not None and self.request_rate is not None:
            raise ConfigError("--users who wait for answers send at their own rate; give either --users or a rate")
        if self.users is not None and self.users < 1:
            raise ConfigError(f"{self.users} users ask nothing; give at least 1")
        if self.request_rate is not None and not 0 < self.request_rate < math.inf:
            raise ConfigError(
                f"a rate of {self.request_rate:g} requests per second cannot be planned for; give more than 0"
            )
        if self.most_devices < 1:
            raise ConfigError(f"--max-devices must be at least 1, not {self.most_devices}")
        if self.budget_usd_per_hour is not None and not self.budget_usd_per_hour > 0:
            raise ConfigError("--budget is USD per hour and must be more than 0")

    @property
    def load_name(self) -> str:
        """The setting that says how much is asked for."""
        return "max_concurrency" if self.users else ("request_rate" if self.request_rate else "rate_scale")

    @property
    def load(self) -> float:
        return float(self.users or self.request_rate or 1.0)

    def at_load(self, load: float) -> dict[str, Value]:
        """Settings of the traffic at ``load``, long enough to see what comes of it."""
        if self.users:
            users = max(1, round(load))
            requests = min(max(LEAST_REQUESTS, REQUESTS_OF_A_USER * users), max(MOST_REQUESTS, users))
            stagger_s = float(f"{self._answer_s():.3g}")
            more: dict[str, Value] = {"max_concurrency": users, "num_prompts": requests, "stagger": stagger_s}
        elif self.request_rate:
            requests = min(max(LEAST_REQUESTS, math.ceil(SECONDS_OF_TRAFFIC * load)), MOST_REQUESTS)
            more = {"request_rate": load, "num_prompts": requests}
        else:
            more = {} if load == 1 else {"rate_scale": load}
        return {**self.traffic, **more}

    def unloaded(self) -> dict[str, Value]:
        """The same requests one at a time: as fast as it gets."""
        few: dict[str, Value] = {} if "trace" in self.traffic else {"num_prompts": 50}
        return {**self.traffic, "max_concurrency": 1, **few}

    def _answer_s(self) -> float:
        """About how long an answer takes within the SLO: users come one by one over that time."""
        limits = [term.limit_ms / 1e3 for term in self.slo.terms if term.metric in ("TPOT", "ITL")]
        return self.answer_tokens * min([USUAL_TPOT_S, *limits])
