"""Everything that a request must pass before the engine gets it."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from simserve.engines.base import Engine
from simserve.server.generation import Plan
from simserve.server.limits.charging import Charging
from simserve.server.limits.drain import Drain
from simserve.server.limits.lengths import check_prompts
from simserve.server.limits.queue import check_room
from simserve.server.settings import InferenceSection


@dataclass(frozen=True)
class RequestLimits:
    """``rules`` hold for all models; once ``max_waiting_requests`` wait, the next is turned away."""

    rules: InferenceSection
    charging: Charging
    drain: Drain
    max_waiting_requests: int | None = None

    async def admit(self, request: web.Request, engine: Engine, plan: Plan) -> None:
        """Raise :class:`simserve.server.errors.ApiError` if ``plan`` is too long, too much, or too late."""
        check_prompts(plan, self.rules.max_input_tokens)
        check_room(engine, self.max_waiting_requests)
        await self.charging.tokens(request, plan.prompt_tokens + plan.output_tokens)
