"""Tiny models on disk, made once, with transformers' own answers to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engines.torch.tiny_models import VOCABULARY, save_tiny_model

PROMPT_LENGTHS = (1, 5, 16, 17, 40, 100, 33, 64, 7, 90)
ANSWER_TOKENS = 24


@dataclass(frozen=True)
class TinyModel:
    """A model's folder, and the model as transformers has it."""

    folder: Path
    reference: Any

    def logits(self, token_ids: list[int]) -> Any:
        """Of every position: [tokens, vocabulary]."""
        import torch

        with torch.no_grad():
            return self.reference(torch.tensor([token_ids])).logits[0]

    def greedy(self, token_ids: list[int], tokens: int = ANSWER_TOKENS) -> list[int]:
        """The likeliest answer of so many tokens."""
        import torch

        prompt = torch.tensor([token_ids])
        with torch.no_grad():
            answer = self.reference.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False,
                eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        return answer[0, len(token_ids) :].tolist()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyModel]:
    """Makes a model by its name in ``tiny_models``."""
    torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine cost tiny models all their time
    pytest.importorskip("transformers", reason="transformers makes the models that the torch engine is compared with")

    @cache
    def make(name: str) -> TinyModel:
        folder = tmp_path_factory.mktemp(name)
        return TinyModel(folder, save_tiny_model(name, folder))

    return make


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Prompts of many lengths, around a block's and over several; no special tokens."""
    import random

    draw = random.Random(1)
    return [[draw.randrange(3, VOCABULARY) for _ in range(length)] for length in PROMPT_LENGTHS]
