"""A simulated answer, token by token: what each token is, and what it tells the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simserve.server.plans import ToolDelta


@dataclass(frozen=True)
class Aside:
    """What a token tells that is not content: a stretch of reasoning, or a part of a tool call."""

    reasoning: str = ""
    call: ToolDelta | None = None


@dataclass
class Script:
    """``token_ids[i]`` adds ``pieces[i]`` to the content and tells ``asides[i]``, if there is one.

    ``is_whole`` says that the answer ends here by itself and is not cut off.
    """

    token_ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    asides: dict[int, Aside] = field(default_factory=dict)
    reasoning_tokens: int = 0
    calls: int = 0
    is_whole: bool = True

    def __len__(self) -> int:
        return len(self.token_ids)

    def say(self, token_ids: Sequence[int], pieces: Sequence[str]) -> None:
        """Go on with content."""
        self.token_ids += token_ids
        self.pieces += pieces

    def think(self, token_ids: Sequence[int], pieces: Sequence[str], *, told: bool) -> None:
        """Go on with reasoning, which the client hears of if it is ``told``."""
        if told:
            self.asides |= {len(self) + at: Aside(reasoning=piece) for at, piece in enumerate(pieces)}
        self.reasoning_tokens += len(token_ids)
        self.say(token_ids, [""] * len(token_ids))

    def hide(self, token_ids: Sequence[int]) -> None:
        """Go on with tokens that tell nothing, such as the frame of a tool call."""
        self.say(token_ids, [""] * len(token_ids))

    def call(self, token_ids: Sequence[int], deltas: Sequence[ToolDelta]) -> None:
        """Go on with tokens that are parts of a tool call, one for one."""
        self.asides |= {len(self) + at: Aside(call=delta) for at, delta in enumerate(deltas)}
        self.hide(token_ids)

    def cut(self, count: int) -> None:
        """Keep the first ``count`` tokens."""
        if count < len(self):
            self.is_whole = False
        del self.token_ids[count:], self.pieces[count:]
        self.reasoning_tokens = min(self.reasoning_tokens, count)
