"""What crosses between the processes, back from JSON; the way there is orjson's own, which knows dataclasses."""

from __future__ import annotations

from typing import Any

from simserve.engines.base import GenerationRequest, RequestTiming, SamplingParams, TokenEvent, TokenLogprob
from simserve.server.auth import Caller
from simserve.server.errors import ApiError
from simserve.server.limits.rates import Verdict
from simserve.server.models import Adapter

Json = dict[str, Any]


def request_from(body: Json) -> GenerationRequest:
    """A sequence to generate."""
    sampling = body["sampling"]
    sampling["stop"] = tuple(sampling["stop"])
    sampling["stop_token_ids"] = tuple(sampling["stop_token_ids"])
    sampling["logit_bias"] = {int(token): bias for token, bias in sampling["logit_bias"].items()}
    return GenerationRequest(**body | {"sampling": SamplingParams(**sampling)})


def event_from(body: Json) -> TokenEvent:
    """Tokens that came out of a step."""
    timing = body["timing"]
    return TokenEvent(
        **body
        | {
            "timing": None if timing is None else RequestTiming(**timing),
            "token_ids": tuple(body["token_ids"]),
            "logprobs": tuple(
                TokenLogprob(one["token_id"], one["logprob"], tuple((token, value) for token, value in one["top"]))
                for one in body["logprobs"]
            ),
        }
    )


def error_body(error: ApiError) -> Json:
    """An error that a client is to be told."""
    return {
        "message": error.message,
        "status": error.status,
        "param": error.param,
        "code": error.code,
        "kind": error.kind,
        "headers": dict(error.headers),
    }


def error_from(body: Json) -> ApiError:
    """The same again."""
    return ApiError(body.pop("message"), **body)


def caller_body(caller: Caller) -> Json:
    """What counting needs of a caller; nothing in it is the key."""
    limits = {"requests_per_minute": caller.requests_per_minute, "tokens_per_minute": caller.tokens_per_minute}
    return {"id": caller.id, **limits}


def caller_from(body: Json) -> Caller:
    """A caller to count for."""
    return Caller(permissions=frozenset(), **body)


def verdict_from(body: Json) -> Verdict:
    """What came of counting; a wait that never ends has no number in JSON."""
    wait_s = body["wait_s"]
    return Verdict(body["granted"], body["headers"], float("inf") if wait_s is None else wait_s)


def adapter_from(body: Json) -> Adapter:
    """A LoRA adapter."""
    return Adapter(**body)
