"""Where the words of simulated answers come from: sentences that ship with SimServe, the question, or a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from simserve.errors import ConfigError

QUESTION_KEYS = ("prompt", "question", "instruction", "input")
ANSWER_KEYS = ("answer", "response", "completion", "output")
MODEL_NAMES = ("gpt", "assistant", "model", "chatgpt", "bard")


class Source(Protocol):
    """Says what to answer."""

    def answer_to(self, asked: str, key: str) -> str | None:
        """The text that answers ``asked``, the same for the same ``key``; None for any text of any length."""
        ...


class AnyText:
    """Sentences without end: every answer is as long as it is wanted."""

    def answer_to(self, asked: str, key: str) -> str | None:
        return None


class Echo:
    """Every answer repeats the question."""

    def answer_to(self, asked: str, key: str) -> str | None:
        return asked


@dataclass(frozen=True)
class Dataset:
    """Answers from a file: the one to the very question if it is there, else one drawn from the key."""

    answers: Sequence[str]
    by_question: Mapping[str, str]

    def answer_to(self, asked: str, key: str) -> str | None:
        known = self.by_question.get(asked.strip())
        if known is not None:
            return known
        drawn = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        return self.answers[drawn % len(self.answers)]


def read_dataset(path: Path) -> Dataset:
    """Answers from ``path``: ``.txt`` has one a line, ``.jsonl`` an object a line, ``.json`` a list of objects.

    An object has an answer ("answer", "response", "completion" or "output"), and perhaps what it answers ("prompt",
    "question", "instruction" or "input"); or ShareGPT's ``conversations``. Raises :class:`ConfigError`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the answers in {path} cannot be read ({error})") from None
    if path.suffix not in (".jsonl", ".json"):
        pairs = [("", line.strip()) for line in text.splitlines() if line.strip()]
    else:
        pairs = [pair for row in _rows(path, text) for pair in _pairs(row)]
    if not pairs:
        raise ConfigError(f"{path} has no answers; give objects with a {ANSWER_KEYS[0]!r}, or lines of text")
    return Dataset([answer for _, answer in pairs], {asked.strip(): answer for asked, answer in pairs if asked.strip()})


def _rows(path: Path, text: str) -> list[Any]:
    if path.suffix == ".json":
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON ({error})") from None
        return rows if isinstance(rows, list) else [rows]
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ConfigError(f"{path}, line {number} is not JSON ({error})") from None
    return rows


def _pairs(row: Any) -> list[tuple[str, str]]:
    """Questions and answers in one row."""
    if isinstance(row, str):
        return [("", row)] if row.strip() else []
    if not isinstance(row, dict):
        return []
    turns = row.get("conversations")
    if isinstance(turns, list):
        said = [(str(turn.get("from")), str(turn.get("value", ""))) for turn in turns if isinstance(turn, dict)]
        return [(asked, text) for (_, asked), (who, text) in pairwise(said) if who in MODEL_NAMES and text.strip()]
    answer = next((row[key] for key in ANSWER_KEYS if isinstance(row.get(key), str) and row[key].strip()), None)
    asked = next((row[key] for key in QUESTION_KEYS if isinstance(row.get(key), str)), "")
    return [] if answer is None else [(asked, answer)]
