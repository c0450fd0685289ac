"""What became of one request."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, replace
from http import HTTPStatus

import orjson

from simserve.bench.backends.base import Answer, Backend, error_message
from simserve.bench.backends.events import BrokenStream, Response, take_apart
from simserve.bench.wire.exchange import Finished

MESSAGE_CHARACTERS = 200

TROUBLES = {
    "refused": "connection refused",
    "connect": "no connection",
    "reset": "connection closed before the answer was complete",
    "timeout": "no complete answer within --request-timeout",
    "protocol": "not HTTP/1.1",
    "interrupted": "stopped before the answer was complete",
}


@dataclass(frozen=True)
class Failure:
    """Why a request does not count. ``kind`` groups like with like; ``message`` is what there is to say about it.

    ``status`` is the HTTP status of an answer that is an error, ``retry_after_s`` what the server asked for.
    """

    kind: str
    message: str = ""
    status: int | None = None
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


@dataclass(frozen=True)
class Outcome:
    """One request from its due time to its end; times are ``perf_counter`` seconds, NaN for what never was.

    ``token_times_s`` are arrivals of chunks with output; ``tokens_at`` the tokens that each completes, where the server
    tells. ``output_tokens`` is None until somebody counted them: the server says nothing of it, and ``text`` is kept
    for that. ``reads`` of the socket brought ``events``: fewer reads mean that several tokens share one stamp.
    """

    index: int
    request_id: str
    due_s: float
    ready_s: float
    sent_s: float
    end_s: float
    token_times_s: array[float]
    tokens_at: array[int]
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    text: str
    failure: Failure | None
    server_queue_s: float
    server_ttft_s: float
    reads: int
    events: int

    @property
    def ok(self) -> bool:
        """Whether it counts in latencies and throughput."""
        return self.failure is None

    @property
    def ttft_s(self) -> float:
        """From sending to the first output; NaN for an answer that is not streamed."""
        return self.token_times_s[0] - self.sent_s if self.token_times_s else math.nan

    @property
    def e2el_s(self) -> float:
        """From sending to the last output or the finish reason."""
        return self.end_s - self.sent_s

    @property
    def tpot_s(self) -> float:
        """Time per token after the first; NaN where there is no such token."""
        if not self.token_times_s or self.output_tokens is None or self.output_tokens < 2:
            return math.nan
        return (self.e2el_s - self.ttft_s) / (self.output_tokens - 1)

    def with_counts(self, input_tokens: int | None = None, output_tokens: int | None = None) -> Outcome:
        """The same, with counts that the server did not give."""
        return replace(
            self,
            input_tokens=self.input_tokens if input_tokens is None else input_tokens,
            output_tokens=self.output_tokens if output_tokens is None else output_tokens,
        )


def outcome_of(exchange: Finished, backend: Backend, *, keep_text: bool) -> Outcome:
    """Read what came back; the text is kept if asked for, or if there is no other way to count its tokens."""
    response = take_apart(exchange)
    answer, failure = _judge(exchange, response, backend)
    needs_text = keep_text or (failure is None and answer.output_tokens is None)
    ended = failure is None and not math.isnan(answer.end_s)
    return Outcome(
        index=exchange.index,
        request_id=exchange.request_id,
        due_s=exchange.due_s,
        ready_s=exchange.ready_s,
        sent_s=exchange.sent_s,
        end_s=answer.end_s if ended else exchange.end_s,
        token_times_s=array("d", answer.times_s),
        tokens_at=array("l", answer.tokens_at),
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        cached_tokens=answer.cached_tokens,
        text=answer.text if needs_text else "",
        failure=failure,
        server_queue_s=answer.server_queue_s,
        server_ttft_s=answer.server_ttft_s,
        reads=len(exchange.times_s),
        events=answer.events,
    )


def _judge(exchange: Finished, response: Response, backend: Backend) -> tuple[Answer, Failure | None]:
    """The answer as far as it goes, and why it is none if it is none."""
    head = response.head
    if head is not None and head.status != HTTPStatus.OK:
        return Answer(), _http_failure(response)
    if head is None:
        return Answer(), _trouble(exchange)
    try:
        answer = backend.read(response)
    except BrokenStream as error:
        if exchange.trouble:
            return Answer(), _trouble(exchange)
        return Answer(), Failure("malformed answer", str(error))
    if answer.error is not None:
        return answer, Failure("error inside a 200 answer", answer.error[:MESSAGE_CHARACTERS])
    if exchange.trouble:
        return answer, _trouble(exchange, len(answer.times_s))
    if not response.is_complete:
        return answer, Failure("stream cut in the middle", f"after {len(answer.times_s)} chunks")
    if backend.is_pooling:
        return answer, None
    if not answer.is_finished:
        return answer, Failure("stream without an end", f"no finish reason and no [DONE] after {answer.events} events")
    if not answer.times_s and not answer.pieces:
        return answer, Failure("empty answer", "no token came")
    return answer, None


def _trouble(exchange: Finished, chunks: int = 0) -> Failure:
    if exchange.trouble == "reset" and chunks:
        return Failure("stream cut in the middle", exchange.detail)
    if not exchange.trouble:
        return Failure(TROUBLES["protocol"])
    return Failure(TROUBLES[exchange.trouble], exchange.detail)


def _http_failure(response: Response) -> Failure:
    assert response.head is not None
    status = response.head.status
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = response.head.reason
    try:
        said = error_message(orjson.loads(response.body)) or ""
    except orjson.JSONDecodeError:
        said = response.body.decode("utf-8", "replace").strip()
    retry = response.head.headers.get("retry-after", "")
    return Failure(
        f"HTTP {status} {phrase}".rstrip(),
        " ".join(said.split())[:MESSAGE_CHARACTERS],
        status,
        float(retry) if retry.isdecimal() else None,
    )
