"""``POST /v1/embeddings``: what clients send and get, and the vectors of the simulated engine."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import Field, model_validator

from simserve.engines.base import Engine, GenerationRequest
from simserve.server.errors import ApiError
from simserve.server.fields import Fields, Prompts, Truncation, Whole, contradiction, truncated
from simserve.server.plans import Cut, run
from simserve.server.streams import Ended, drained, opened, together

INLINE_NUMBERS = 20_000
"""Of all vectors, or tokens of all pairs; more are worked on in a thread."""

Vector = npt.NDArray[np.float32]


class EmbeddingRequest(Fields):
    """Body of the request; ``input`` is read as a list, each text or token ids. Instead, vLLM takes ``messages``."""

    model: str | None = None
    input: Prompts = Field(default_factory=list)
    messages: list[Any] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[Whole, Field(ge=1)] | None = None
    truncate_prompt_tokens: Truncation = None
    truncation_side: Literal["left", "right"] = "right"
    user: str | None = None

    @model_validator(mode="after")
    def _there_is_one(self) -> EmbeddingRequest:
        if bool(self.input) == (self.messages is not None):
            raise contradiction("input", "give either `input` or `messages`")
        return self

    def cut(self, max_model_len: int) -> Cut:
        """What ``truncate_prompt_tokens`` makes of each text's tokens."""
        return lambda tokens: truncated(tokens, self.truncate_prompt_tokens, max_model_len - 1, self.truncation_side)

    def check_dimensions(self, dimensions: int) -> None:
        """Raise 400 for vectors of another length than the model's: only models made for it can be cut."""
        if self.dimensions not in (None, dimensions):
            raise ApiError(
                f"This model's embeddings have {dimensions} dimensions and cannot be cut to {self.dimensions}.",
                param="dimensions",
            )


@dataclass(frozen=True)
class Embedded:
    """What an embedder made, vectors or scores, in the order of what was asked; ``reads`` say how long reading took."""

    values: Sequence[Any]
    reads: Sequence[Ended] = ()


class Embedder(Protocol):
    """Turns prompts into vectors of length 1, with one kind of engine."""

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        ...

    async def embed(self, prompts: Sequence[Sequence[int]], request_id: str) -> Embedded:
        """A vector for each prompt, once the engine has read them all."""
        ...

    async def scores(self, pairs: Sequence[tuple[list[int], list[int]]], request_id: str) -> Embedded:
        """How well the second of each pair matches the first, once the engine has read both."""
        ...

    def over(self, engine: Engine) -> Embedder:
        """The same for another engine, which must do the same."""
        ...


class SimulatedEmbedder:
    """Vectors that depend on the tokens alone and mean nothing, at the time at which an engine would have them.

    For the engine it is a request for one token: it reads the whole prompt and is done with the step that ends it.
    """

    def __init__(self, engine: Engine, hidden_size: int) -> None:
        self._engine = engine
        self._salt = b""
        self.dimensions = hidden_size
        self._numbers = itertools.count()

    async def embed(self, prompts: Sequence[Sequence[int]], request_id: str) -> Embedded:
        reads = await self._read(prompts, request_id)
        is_long = len(prompts) * self.dimensions > INLINE_NUMBERS
        return Embedded(await run(lambda: [self._vector(tokens) for tokens in prompts], in_thread=is_long), reads)

    async def scores(self, pairs: Sequence[tuple[list[int], list[int]]], request_id: str) -> Embedded:
        """How alike the words of both are: the cosine of their token counts."""
        reads = await self._read([one + other for one, other in pairs], request_id)
        is_long = sum(len(one) + len(other) for one, other in pairs) > INLINE_NUMBERS
        return Embedded(await run(lambda: [_likeness(*pair) for pair in pairs], in_thread=is_long), reads)

    async def _read(self, prompts: Sequence[Sequence[int]], request_id: str) -> list[Ended]:
        sequences = [
            GenerationRequest(f"{request_id}-{next(self._numbers)}", tokens, max_tokens=1) for tokens in prompts
        ]
        async with opened(self._engine, sequences) as streams:
            return await together([drained(stream) for stream in streams])

    def over(self, engine: Engine) -> SimulatedEmbedder:
        other = copy.copy(self)  # with the same numbers: sequences have ids of their own
        other._engine = engine
        return other

    def renamed(self, model: str) -> SimulatedEmbedder:
        """The same for another name, with other vectors: an adapter of the model."""
        other = copy.copy(self)
        other._salt = model.encode()
        return other

    def _vector(self, tokens: Sequence[int]) -> Vector:
        digest = hashlib.blake2b(
            array("q", tokens).tobytes() + self._salt, digest_size=16, person=b"simserve-embed"
        ).digest()
        drawn = np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(self.dimensions)
        return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def _likeness(one: Sequence[int], other: Sequence[int]) -> float:
    first, second = Counter(one), Counter(other)
    shared = sum(count * second[token] for token, count in first.items())
    lengths = math.sqrt(sum(n * n for n in first.values()) * sum(n * n for n in second.values()))
    return shared / lengths if lengths else 0.0


def embeddings_body(request: EmbeddingRequest, model: str, vectors: Sequence[Vector], prompt_tokens: int) -> bytes:
    """The answer: vectors as numbers, or as the base64 of little-endian float32, which OpenAI's clients ask for."""
    as_base64 = request.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else _numbers(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    body = {"object": "list", "data": data, "model": model, "usage": usage}
    return orjson.dumps(body)


def _numbers(vector: Vector) -> orjson.Fragment:
    """One at a time: between them, other threads have their turn."""
    return orjson.Fragment(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
