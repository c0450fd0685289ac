"""What ``/v1/responses`` answers: response objects, and the items of their output."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simserve.server.plans import Piece, Plan, ToolDelta, merged, merged_calls
from simserve.server.responses_api.ids import item_id, response_id
from simserve.server.responses_api.request import ResponsesRequest
from simserve.server.streams import Ended

Json = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """What all objects of one response have in common; ``number`` makes the ids of its items."""

    number: str
    model: str
    request: ResponsesRequest
    created_s: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        return response_id(self.number)

    def item_id(self, kind: str, at: int = 0) -> str:
        """The id of an item of the output."""
        return item_id(kind, self.number, at)


def response_object(head: Head, status: str, output: Sequence[Json], usage: Json | None = None, **more: Any) -> Json:
    """The response as it is now."""
    request = head.request
    body: Json = {
        "id": head.id,
        "object": "response",
        "created_at": head.created_s,
        "status": status,
        "background": request.background,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "model": head.model,
        "output": list(output),
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": request.reasoning.effort, "summary": request.reasoning.summary},
        "store": request.store,
        "temperature": request.temperature,
        "text": {"format": _format(request)},
        "tool_choice": request.tool_choice,
        "tools": [_tool(tool.model_dump()) for tool in request.tools],
        "top_logprobs": request.top_logprobs,
        "top_p": request.top_p,
        "truncation": request.truncation,
        "usage": usage,
        "user": request.user,
        "metadata": request.metadata,
    }
    return body | more


def finished(head: Head, plan: Plan, pieces: Sequence[Piece], ended: Ended) -> Json:
    """The response once all its pieces are there."""
    whole = merged(pieces)
    cut = whole.finish_reason == "length"
    status = "incomplete" if cut else "completed"
    details = {"reason": "max_output_tokens"} if cut else None
    items = output_items(head, whole, "incomplete" if cut else "completed")
    return response_object(head, status, items, _usage(plan, ended), incomplete_details=details)


def output_items(head: Head, whole: Piece, status: str) -> list[Json]:
    """Reasoning, message and calls, as far as there are any; an answer that says nothing is an empty message."""
    items = [reasoning_item(head, whole.reasoning, "completed")] if whole.reasoning else []
    if whole.text or not whole.calls:
        items.append(message_item(head, status, [text_part(whole.text, whole.logprobs)]))
    return items + [call_item(head, call, status) for call in merged_calls(whole.calls)]


def reasoning_item(head: Head, text: str | None, status: str) -> Json:
    """What the model thought; None while it begins to."""
    content = [] if text is None else [{"type": "reasoning_text", "text": text}]
    return {"id": head.item_id("rs"), "type": "reasoning", "summary": [], "content": content, "status": status}


def message_item(head: Head, status: str, content: Sequence[Json]) -> Json:
    """What the model says."""
    item = {"id": head.item_id("msg"), "type": "message", "role": "assistant", "status": status}
    return {**item, "content": list(content)}


def text_part(text: str, logprobs: Mapping[str, Any] | None = None) -> Json:
    """The text of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": told_logprobs(logprobs)}


def told_logprobs(logprobs: Mapping[str, Any] | None) -> list[Json]:
    """A chat's logprobs as this API has them."""
    return list(logprobs["content"]) if logprobs else []


def call_item(head: Head, call: ToolDelta, status: str) -> Json:
    """A call of a function."""
    item = {"id": head.item_id("fc", call.index), "type": "function_call", "status": status}
    return {**item, "call_id": call.id, "name": call.name, "arguments": call.arguments}


def answer_messages(whole: Piece) -> list[Json]:
    """The answer as messages of a chat that goes on."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in whole.calls
    ]
    return [{"role": "assistant", "content": whole.text} | ({"tool_calls": calls} if calls else {})]


def _usage(plan: Plan, ended: Ended) -> Json:
    cached = ended.timing.cached_tokens if ended.timing else 0
    return {
        "input_tokens": plan.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": ended.tokens,
        "output_tokens_details": {"reasoning_tokens": ended.reasoning_tokens},
        "total_tokens": plan.prompt_tokens + ended.tokens,
    }


def _format(request: ResponsesRequest) -> Json:
    form = request.text.format
    if form.type != "json_schema":
        return {"type": form.type}
    return {"type": form.type, "name": form.name, "schema": form.json_schema, "strict": form.strict}


def _tool(tool: Json) -> Json:
    return {**tool, "parameters": tool["parameters"], "strict": tool["strict"]}
