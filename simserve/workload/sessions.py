"""Conversations of several turns: each prompt is the whole conversation so far and something new."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError
from simserve.workload.arrivals import ArrivalProcess, SteadyArrivals
from simserve.workload.lengths import LengthDistribution
from simserve.workload.streams import random_streams
from simserve.workload.synthetic import as_distribution
from simserve.workload.think_time import ThinkTime

SESSION_IDS = 1 << 32
"""Unit ids of one session; more units than any prompt has."""


@dataclass(frozen=True, eq=False)
class Sessions:
    """Conversations as columns: the turns of session ``s`` are ``offsets[s]`` up to ``offsets[s + 1]``.

    ``start_s`` is when each session sends its first prompt, ascending. Of a turn, ``input_tokens`` is its whole prompt
    (system prompt, earlier prompts and answers, new input), ``output_tokens`` its answer, and ``think_s`` passes before
    the next turn. The first ``system_tokens`` are the same in all sessions.
    ``adapters`` are the LoRA adapters of the sessions, see :class:`~simserve.workload.workload.Workload`.
    """

    name: str
    start_s: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    think_s: npt.NDArray[np.float64]
    system_tokens: int
    unit_tokens: int
    adapters: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """The number of turns, which are requests, in all sessions together."""
        return len(self.input_tokens)

    def units(self, session: int, turn: int) -> list[int]:
        """Ids of the full units of turn ``turn`` (counted over all sessions), of its prompt and of its answer.

        A conversation only ever grows, so a unit is named by its session and its place there; units that lie in the
        system prompt are everybody's. The next turn's prompt begins with these very units.
        """
        count = int(self.input_tokens[turn] + self.output_tokens[turn]) // self.unit_tokens
        shared = min(self.system_tokens // self.unit_tokens, count)
        own = (session + 1) * SESSION_IDS
        return [*range(shared), *range(own + shared, own + count)]


def draw_sessions(
    num_sessions: int,
    session_rate: float | ArrivalProcess,
    turns: int | LengthDistribution,
    input_len: int | LengthDistribution,
    output_len: int | LengthDistribution,
    think_time: ThinkTime,
    seed: int,
    *,
    system_tokens: int = 0,
    unit_tokens: int = 16,
) -> Sessions:
    """``num_sessions`` that start at ``session_rate`` per second, of ``turns`` turns each.

    ``input_len`` is what each turn adds to the conversation (tokens), ``output_len`` its answer. ``unit_tokens`` is the
    grain at which prompts are shared and must be the engine's KV block size or a multiple of it. Raises
    :class:`WorkloadError` for a count or length below 1, a negative system prompt or seed, or a bad rate.
    """
    if num_sessions < 1:
        raise WorkloadError(f"a workload of {num_sessions} sessions is empty; give at least 1")
    if system_tokens < 0:
        raise WorkloadError(f"a system prompt of {system_tokens} tokens cannot be; give 0 or more")
    if unit_tokens < 1:
        raise WorkloadError(f"prompts cannot be shared in units of {unit_tokens} tokens; give the KV block size")
    arrivals = SteadyArrivals(session_rate) if isinstance(session_rate, int | float) else session_rate
    turn_counts, new_inputs, outputs = map(as_distribution, (turns, input_len, output_len))
    streams = random_streams(seed)
    counts = turn_counts.draw(streams.turns, num_sessions)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    total = int(offsets[-1])
    new_input_tokens = new_inputs.draw(streams.input_lengths, total)
    output_tokens = outputs.draw(streams.output_lengths, total)
    return Sessions(
        name=f"sessions-{num_sessions}x{turn_counts}x{new_inputs}+{outputs}@{arrivals}",
        start_s=arrivals.draw(streams.arrivals, num_sessions),
        offsets=offsets,
        input_tokens=system_tokens + _grown(new_input_tokens, output_tokens, offsets),
        output_tokens=output_tokens,
        think_s=think_time.draw(streams.think_times, total),
        system_tokens=system_tokens,
        unit_tokens=unit_tokens,
    )


def _grown(
    new_input_tokens: npt.NDArray[np.int64], output_tokens: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Prompt of each turn without the system prompt: all turns before it in its session, and its own new input."""
    before = np.concatenate(([0], np.cumsum(new_input_tokens + output_tokens)))
    earlier_sessions = np.repeat(before[offsets[:-1]], np.diff(offsets))
    return np.asarray(before[:-1] - earlier_sessions + new_input_tokens)
