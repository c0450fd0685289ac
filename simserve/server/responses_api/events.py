"""The events of a streamed response, in the order in which OpenAI's client puts them together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from simserve.server.plans import Piece, ToolDelta, merged
from simserve.server.responses_api.objects import (
    Head,
    call_item,
    message_item,
    reasoning_item,
    response_object,
    text_part,
    told_logprobs,
)

Json = dict[str, Any]


class EventWriter:
    """Makes the frames of one stream; items of the output are opened when they begin, and closed by the next."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._number = 0
        self._index = -1
        self._kind = ""
        self._call: ToolDelta | None = None
        self._pieces: list[Piece] = []
        self._items = 0

    def opening(self) -> bytes:
        """That there is a response."""
        now = response_object(self._head, "in_progress", [])
        return self._event("response.created", response=now) + self._event("response.in_progress", response=now)

    def piece(self, piece: Piece) -> bytes:
        """All that became known."""
        return b"".join(self._frames(piece))

    def closing(self, whole: Json, status: str) -> bytes:
        """The end of the last item, and the whole response; an answer that said nothing gets an empty message."""
        frames = b"" if self._items else b"".join(self._begin("message"))
        frames += b"".join(self._end("completed" if status == "completed" else "incomplete"))
        return frames + self._event(f"response.{status}", response=whole)

    def failure(self, error: Json) -> bytes:
        """That it failed, and why."""
        code = error["code"] or "server_error"
        failed = response_object(self._head, "failed", [], error={"code": "server_error", "message": error["message"]})
        said = self._event("error", code=code, message=error["message"], param=error["param"])
        return said + self._event("response.failed", response=failed)

    def _frames(self, piece: Piece) -> Iterator[bytes]:
        if piece.reasoning:
            yield from self._begin("reasoning")
            self._pieces.append(Piece("", reasoning=piece.reasoning))
            yield self._delta("response.reasoning_text.delta", "rs", delta=piece.reasoning, content_index=0)
        if piece.text:
            yield from self._begin("message")
            self._pieces.append(Piece(piece.text, logprobs=piece.logprobs))
            logprobs = told_logprobs(piece.logprobs)
            yield self._delta("response.output_text.delta", "msg", delta=piece.text, content_index=0, logprobs=logprobs)
        for call in piece.calls:
            if self._call is None or call.index != self._call.index or self._kind != "call":
                yield from self._begin("call", call)
            self._pieces.append(Piece("", calls=(call,)))
            if call.arguments:
                yield self._delta("response.function_call_arguments.delta", "fc", call.index, delta=call.arguments)

    def _begin(self, kind: str, call: ToolDelta | None = None) -> Iterator[bytes]:
        """Open an item of this kind if it is not the present one."""
        if kind == self._kind and call is None:
            return
        yield from self._end("completed")
        self._kind, self._call = kind, call
        self._index += 1
        self._items += 1
        head = self._head
        if call is not None:
            begun = call_item(head, ToolDelta(call.index, "", call.id, call.name), "in_progress")
            yield self._event("response.output_item.added", output_index=self._index, item=begun)
        elif kind == "reasoning":
            begun = reasoning_item(head, None, "in_progress")
            yield self._event("response.output_item.added", output_index=self._index, item=begun)
        else:
            begun = message_item(head, "in_progress", [])
            yield self._event("response.output_item.added", output_index=self._index, item=begun)
            yield self._delta("response.content_part.added", "msg", content_index=0, part=text_part(""))

    def _end(self, status: str) -> Iterator[bytes]:
        """Close the present item, if there is one."""
        if not self._kind:
            return
        head, whole = self._head, merged(self._pieces) if self._pieces else Piece("")
        if self._kind == "reasoning":
            yield self._delta("response.reasoning_text.done", "rs", text=whole.reasoning, content_index=0)
            item = reasoning_item(head, whole.reasoning, status)
        elif self._kind == "message":
            part = text_part(whole.text, whole.logprobs)
            yield self._delta(
                "response.output_text.done", "msg", content_index=0, text=whole.text, logprobs=part["logprobs"]
            )
            yield self._delta("response.content_part.done", "msg", content_index=0, part=part)
            item = message_item(head, status, [part])
        else:
            (call,) = whole.calls
            yield self._delta(
                "response.function_call_arguments.done", "fc", call.index, arguments=call.arguments, name=call.name
            )
            item = call_item(head, call, status)
        yield self._event("response.output_item.done", output_index=self._index, item=item)
        self._kind, self._call, self._pieces = "", None, []

    def _delta(self, kind: str, item: str, at: int = 0, **fields: Any) -> bytes:
        return self._event(kind, item_id=self._head.item_id(item, at), output_index=self._index, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(body))
