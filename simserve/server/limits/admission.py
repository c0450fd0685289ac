"""Everything that a request must pass before the engine gets it."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from simserve.engines.base import Engine
from simserve.server.limits.charging import Charging
from simserve.server.limits.drain import Drain
from simserve.server.limits.lengths import check_length
from simserve.server.limits.queue import check_room
from simserve.server.settings import InferenceSection


@dataclass(frozen=True)
class RequestLimits:
    """``rules`` hold for all models; once ``max_waiting_requests`` wait, the next is turned away."""

    rules: InferenceSection
    charging: Charging
    drain: Drain
    max_waiting_requests: int | None = None

    async def admit(self, request: web.Request, engine: Engine, longest_prompt: int, tokens: int) -> None:
        """Raise :class:`simserve.server.errors.ApiError` for a request that is too long, too much, or too late.

        ``longest_prompt`` is in tokens; ``tokens`` are those of all prompts and, at most, of all answers.
        """
        check_length(longest_prompt, self.rules.max_input_tokens)
        check_room(engine, self.max_waiting_requests)
        await self.charging.tokens(request, tokens)
