"""Speculative decoding as a vLLM server counts it: its metrics after the run, less those before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simserve.errors import ServerError

if TYPE_CHECKING:
    from simserve.bench.server_facts import Server

PREFIX = "vllm:spec_decode_"
LINE = re.compile(rf"{PREFIX}(\w+?)(?:_total)?(?:{{(.*)}})? ([0-9.eE+-]+)")
POSITION = re.compile(r'position="(\d+)"')

Counts = dict[tuple[str, int | None], float]
"""By name, and for what is counted by place in the draft, that place."""


@dataclass(frozen=True)
class Speculation:
    """Drafts made, tokens in them, how many of those were accepted, and of each place in a draft."""

    drafts: int
    draft_tokens: int
    accepted_tokens: int
    accepted_at: tuple[int, ...]

    @property
    def acceptance_rate(self) -> float:
        """Accepted of drafted tokens, in percent."""
        return 100.0 * self.accepted_tokens / self.draft_tokens if self.draft_tokens else 0.0

    @property
    def acceptance_length(self) -> float:
        """Tokens per draft and the one that always comes."""
        return 1.0 + (self.accepted_tokens / self.drafts if self.drafts else 0.0)

    @property
    def rates_at(self) -> list[float]:
        """How often each place of a draft was accepted."""
        return [count / self.drafts for count in self.accepted_at] if self.drafts else []


def read_counters(server: Server, timeout_s: float) -> Counts:
    """The counters of speculative decoding at ``/metrics``; none where the server has no such thing."""
    try:
        text = server.get("/metrics", timeout_s)
    except ServerError:
        return {}
    return parse_counters(text or "")


def parse_counters(text: str) -> Counts:
    """The counters in ``text``, over all engines."""
    counts: Counts = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line.strip())
        if match is None or match[1].endswith("_created"):
            continue
        place = POSITION.search(match[2] or "")
        key = (match[1], int(place[1]) if place else None)
        counts[key] = counts.get(key, 0.0) + float(match[3])
    return counts


def speculation_between(before: Mapping[tuple[str, int | None], float], after: Counts) -> Speculation | None:
    """What was drafted between two readings; None if nothing was."""

    def grown(name: str, place: int | None = None) -> int:
        return round(after.get((name, place), 0.0) - before.get((name, place), 0.0))

    drafts = grown("num_drafts")
    if drafts <= 0:
        return None
    places = sorted(place for name, place in after if name == "num_accepted_tokens_per_pos" and place is not None)
    return Speculation(
        drafts,
        grown("num_draft_tokens"),
        grown("num_accepted_tokens"),
        tuple(grown("num_accepted_tokens_per_pos", place) for place in places),
    )
