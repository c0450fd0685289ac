"""Conversations made up as a generation file says: the user's words cut out of texts, the answers' lengths drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simserve.bench.multi_turn.conversations import ASSISTANT, USER, Conversation, Message
from simserve.bench.multi_turn.distributions import Drawer, parse_distribution
from simserve.bench.tokens import TextTokenizer, TokenCounter
from simserve.bench.tokens.counter import LATIN_CHARACTERS_PER_TOKEN
from simserve.errors import ConfigError, WorkloadError

FILE_TYPE = "generate_conversations"
LEAST_TURNS = 2


def is_generation(content: Any) -> bool:
    """Whether a JSON file describes conversations rather than holding them."""
    return isinstance(content, Mapping) and content.get("filetype") == FILE_TYPE


def generate_conversations(
    source: Path, spec: Mapping[str, Any], counter: TokenCounter, seed: int, max_turns: int | None = None
) -> list[Conversation]:
    """Conversations by ``spec``, whose text files lie where it says, seen from its own folder or from here.

    Turns are at least 2 and even: each question has its answer. Raises :class:`WorkloadError` for what is missing.
    """
    count = spec.get("num_conversations")
    if not isinstance(count, int) or count < 1:
        raise WorkloadError(f"{source}: num_conversations must be a whole number of at least 1")
    prompts, answers = _section(source, spec, "prompt_input"), _section(source, spec, "prompt_output")

    def drawer(section: Mapping[str, Any], name: str, field: str) -> Drawer:
        return parse_distribution(f"{source}: {name}.{field}", section.get(field))

    turns = drawer(prompts, "prompt_input", "num_turns")
    prefixes = drawer(prompts, "prompt_input", "prefix_num_tokens")
    lengths = drawer(prompts, "prompt_input", "num_tokens")
    outputs = drawer(answers, "prompt_output", "num_tokens")
    rng = np.random.default_rng(seed)
    text = _Reader(_texts(source, spec), counter)
    common = ""
    if "common_prefix_num_tokens" in prompts:
        common = text.next(max(drawer(prompts, "prompt_input", "common_prefix_num_tokens").draw(rng, 1)[0], 0))
    conversations = []
    for number, (drawn, prefix) in enumerate(zip(turns.draw(rng, count), prefixes.draw(rng, count), strict=True)):
        messages = max(drawn + drawn % 2, LEAST_TURNS)
        pairs = list(zip(lengths.draw(rng, messages // 2), outputs.draw(rng, messages // 2), strict=True))
        conversations.append(_conversation(str(number), pairs, common, max(prefix, 0), text, max_turns))
    return conversations


def _conversation(
    id_: str, pairs: list[tuple[int, int]], common: str, prefix_tokens: int, text: _Reader, max_turns: int | None
) -> Conversation:
    """The id stands between what all share and what is this conversation's own, so that no more than that is shared."""
    messages = []
    for turn, (asked, answered) in enumerate(pairs):
        begin = f"{common}Conversation {id_}: {text.next(prefix_tokens)}" if turn == 0 else ""
        messages += [Message(USER, begin + text.next(max(asked, 1))), Message(ASSISTANT, "", max(answered, 1))]
    return Conversation(id_, messages if max_turns is None else messages[:max_turns])


class _Reader:
    """Reads on and on through one long text, so many tokens at a time; at its end it begins anew."""

    def __init__(self, text: str, counter: TokenCounter) -> None:
        self._place = 0
        self._text = text
        self._tokenizer = counter if isinstance(counter, TextTokenizer) else None
        self._ids = self._tokenizer.encode(text) if self._tokenizer else []

    def next(self, tokens: int) -> str:
        """The next ``tokens`` tokens, exactly or, without a tokenizer, by their characters."""
        if not tokens:
            return ""
        if self._tokenizer is not None:
            ids = [self._ids[(self._place + step) % len(self._ids)] for step in range(tokens)]
            self._place += tokens
            return self._tokenizer.decode(ids)
        characters = round(tokens * LATIN_CHARACTERS_PER_TOKEN)
        start = self._place % len(self._text)
        self._place += characters
        return (self._text[start:] + self._text * (characters // len(self._text) + 1))[:characters]


def _section(source: Path, spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = spec.get(name)
    if not isinstance(section, Mapping):
        raise WorkloadError(f"{source}: {name} is missing; see docs/bench.md for the form")
    return section


def _texts(source: Path, spec: Mapping[str, Any]) -> str:
    """All text files joined."""
    names = spec.get("text_files")
    if not isinstance(names, list) or not names:
        raise WorkloadError(f"{source}: text_files must name at least one file")
    parts = []
    for name in names:
        path = source.parent / str(name)
        path = path if path.is_file() else Path(str(name))
        try:
            parts.append(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{source}: cannot read the text file {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise WorkloadError(f"{source}: the text file {name} is no text in UTF-8") from None
    text = "\n".join(parts)
    if not text.strip():
        raise WorkloadError(f"{source}: the text files are empty")
    return text
