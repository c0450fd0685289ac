"""What the test server says of itself: when each request arrived and each token left, by the clock that clients use.

``perf_counter`` is one clock for all processes of a machine, so that a client's stamps can be held against these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.bench.self_test.server import LOG_PATH, Timing
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.ask import ask
from simserve.errors import ServerError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ServerLog:
    """``rows[request id]`` is when that request arrived, and then when each token of its answer was sent.

    ``cpu_s`` is what the server has used so far.
    """

    rows: dict[str, Floats]
    cpu_s: float

    def ttft_s(self) -> Floats:
        """From each request's arrival to its first token's sending."""
        return np.array([row[1] - row[0] for row in self.rows.values()])

    def e2el_s(self) -> Floats:
        """From each request's arrival to its last token's sending."""
        return np.array([row[-1] - row[0] for row in self.rows.values()])

    def itl_s(self) -> Floats:
        """Between tokens, pooled over all answers."""
        return np.concatenate([np.diff(row[1:]) for row in self.rows.values()])

    def lateness_s(self, timing: Timing) -> Floats:
        """By how much each token left later than ``timing`` has it, an answer a row."""
        due = timing.ttft_s + timing.itl_s * np.arange(timing.tokens)
        return np.array([row[1:] - row[0] - due for row in self.rows.values()])


def read_log(url: str) -> ServerLog:
    """The log of the test server at ``url``; raises :class:`ServerError` if it has answered nothing to the end."""
    told = ask(parse_address(url), LOG_PATH).json
    rows = {id_: np.array(times) for id_, times in told["answers"].items()}
    if not rows:
        raise ServerError(f"the test server at {url} has answered nothing to the end")
    return ServerLog(rows, float(told["cpu_s"]))
