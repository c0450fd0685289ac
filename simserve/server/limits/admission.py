"""Everything that a request must pass before the engine gets it."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from simserve.server.limits.charging import Charging
from simserve.server.limits.drain import Drain
from simserve.server.limits.lengths import check_length
from simserve.server.settings import InferenceSection


@dataclass(frozen=True)
class RequestLimits:
    """``rules`` hold for all models, ``charging`` counts tokens, ``drain`` says whether the server ends."""

    rules: InferenceSection
    charging: Charging
    drain: Drain

    async def admit(self, request: web.Request, longest_prompt: int, tokens: int) -> None:
        """Raise :class:`simserve.server.errors.ApiError` for a request that is too long or too much.

        ``longest_prompt`` is in tokens; ``tokens`` are those of all prompts and, at most, of all answers.
        """
        check_length(longest_prompt, self.rules.max_input_tokens)
        await self.charging.tokens(request, tokens)
