"""What a server says of itself: its models, and how it counts tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from simserve.bench.datasets.words import stable_rng
from simserve.bench.options import Target
from simserve.bench.sample import Sample
from simserve.bench.wire.address import Address
from simserve.bench.wire.ask import ask
from simserve.errors import ServerError

LOOK_TIMEOUT_S = 5.0
RETRY_S = 1.0
TOKENIZE_AT_ONCE = 64
SHORT_WORDS = (" the", " and", " of", " to", " in", " is", " it", " on")
"""One token each in every vocabulary of English."""

ROUNDS = 10
"""Attempts at a prompt of just the right length through /tokenize and /detokenize."""


@dataclass(frozen=True)
class Server:
    """A server and how to talk to it beside the measurement."""

    address: Address
    headers: Mapping[str, str]
    insecure: bool = False

    def get(self, path: str, timeout_s: float = 30.0) -> str | None:
        """The text at ``path``, or None if it has none."""
        told = ask(self.address, path, headers=self.headers, insecure=self.insecure, timeout_s=timeout_s)
        return told.body.decode("utf-8", "replace") if told.status == 200 else None

    def get_json(self, path: str, timeout_s: float = 30.0) -> object:
        """The JSON at ``path``, or None if it has none."""
        told = ask(self.address, path, headers=self.headers, insecure=self.insecure, timeout_s=timeout_s)
        return told.json if told.status == 200 else None

    def post(self, path: str, body: object) -> object:
        """What the server answers as JSON, or None if it refuses."""
        told = ask(self.address, path, body, self.headers, insecure=self.insecure)
        return told.json if told.status == 200 else None


@dataclass(frozen=True)
class ModelCard:
    """A model as the server lists it: ``name`` in requests, ``root`` where its files come from."""

    name: str
    root: str
    owner: str = ""


def request_headers(target: Target) -> dict[str, str]:
    """Headers of every request: the key from the environment, then whatever was given."""
    key = os.environ.get("OPENAI_API_KEY")
    standard = {"Authorization": f"Bearer {key}"} if key else {}
    given = {name.lower() for name in target.headers}
    return {name: value for name, value in standard.items() if name.lower() not in given} | dict(target.headers)


def first_model(server: Server) -> ModelCard:
    """The first model that the server lists; raises :class:`ServerError` if it lists none."""
    told = ask(server.address, "/v1/models", headers=server.headers, insecure=server.insecure)
    body = told.json
    models = body.get("data") if isinstance(body, dict) else None
    if told.status == 401:
        raise ServerError(f"{server.address.url} wants a key (401); set OPENAI_API_KEY")
    if told.status != 200 or not isinstance(models, list) or not models or not isinstance(models[0], dict):
        raise ServerError(
            f"{server.address.url} lists no model at /v1/models ({told.status}); give its name with --model"
        )
    name = str(models[0].get("id"))
    return ModelCard(name, str(models[0].get("root") or name), str(models[0].get("owned_by") or ""))


def named_model(server: Server, name: str) -> ModelCard:
    """The model of that name, with what the server says of it, if it says anything."""
    try:
        models = server.get_json("/v1/models", LOOK_TIMEOUT_S)
    except ServerError:
        models = None
    cards = models.get("data") if isinstance(models, dict) else None
    for card in cards if isinstance(cards, list) else []:
        if isinstance(card, dict) and card.get("id") == name:
            return ModelCard(name, name, str(card.get("owned_by") or ""))
    return ModelCard(name, name)


def wait_for_answer(server: Server, timeout_s: float) -> None:
    """Wait until the server answers at all; raises :class:`ServerError` when the time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            ask(server.address, "/health", headers=server.headers, insecure=server.insecure, timeout_s=timeout_s)
            return
        except ServerError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(min(RETRY_S, max(deadline - time.monotonic(), 0.0)))


def align_prompts(server: Server, model: str, samples: list[Sample], seed: int) -> tuple[list[Sample], str | None]:
    """``samples`` with prompts of just the tokens that the server counts in them, where it tells (``/tokenize``).

    As in ``vllm bench serve`` the first prompt decides whether that is needed, if a tokenizer counted it; here prompts
    that are too short are mended too. Returns what the user should know as well, if anything.
    """
    first = samples[0]
    if not isinstance(first.prompt, str):
        return samples, None
    ids = _tokenize(server, model, first.prompt)
    if ids is None:
        return samples, None
    if first.is_exact and len(ids) == first.input_tokens:
        return samples, None

    def mended(numbered: tuple[int, Sample]) -> Sample:
        return _mended(server, model, numbered[1], numbered[0] + seed)

    with ThreadPoolExecutor(TOKENIZE_AT_ONCE) as threads:
        aligned = list(threads.map(mended, enumerate(samples)))
    missed = sum(not one.is_exact for one in aligned)
    note = f"prompts were measured by the server: {len(aligned) - missed:,} were cut or filled up to the asked length"
    return aligned, note + (f", {missed:,} could not be" if missed else "")


def _mended(server: Server, model: str, sample: Sample, seed: int) -> Sample:
    text, target = str(sample.prompt), sample.input_tokens
    rng = stable_rng("align", seed)
    count = 0
    for cut_more in range(ROUNDS):
        ids = _tokenize(server, model, text)
        if ids is None:
            return sample
        count = len(ids)
        if count == target:
            return replace(sample, prompt=text, is_exact=True)
        if count > target:
            detokenized = _detokenize(server, model, ids[: max(target - cut_more, 0)])
            if detokenized is None:
                return sample
            text = detokenized
        else:
            text += "".join(rng.choice(SHORT_WORDS, target - count))
    return replace(sample, prompt=text, input_tokens=count, is_exact=False)


def _tokenize(server: Server, model: str, text: str) -> list[int] | None:
    try:
        body = server.post("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
    except ServerError:
        return None
    ids = body.get("tokens") if isinstance(body, dict) else None
    return ids if isinstance(ids, list) else None


def _detokenize(server: Server, model: str, ids: list[int]) -> str | None:
    body = server.post("/detokenize", {"model": model, "tokens": ids})
    text = body.get("prompt") if isinstance(body, dict) else None
    return text if isinstance(text, str) else None
