"""How the answers of one server are, by its settings and by what its models are known for."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from simserve.server.answers.sources import AnyText, Dataset, Echo, Source, read_dataset
from simserve.server.answers.writer import Habits
from simserve.server.settings import AnswersSection
from simserve.workload.lengths import parse_length

REASONING_MODELS = re.compile(
    r"deepseek-(r1|reasoner)|qwq|gpt-oss|magistral|thinking|qwen3(?!.*(instruct-2507|coder|embedding|reranker|base))",
    re.IGNORECASE,
)
"""Models that reason before they answer unless they are told not to."""


def habits_in(answers: AnswersSection) -> Habits:
    """What the settings say; raises :class:`simserve.errors.ConfigError` if there are no answers in the dataset."""
    length = None if answers.length is None else parse_length(answers.length, "answers.length")
    return Habits(_source(answers), length)


def is_reasoning_model(name: str) -> bool:
    """Whether a model of that name reasons before it answers."""
    return REASONING_MODELS.search(name) is not None


def _source(answers: AnswersSection) -> Source:
    if answers.mode == "dataset":
        assert answers.dataset is not None
        return _dataset(answers.dataset)
    return Echo() if answers.mode == "echo" else AnyText()


@lru_cache(maxsize=4)
def _dataset(path: Path) -> Dataset:
    """Read once, however many models there are."""
    return read_dataset(path)
