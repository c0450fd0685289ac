"""Conversations from a file, and back into one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simserve.errors import ConfigError, WorkloadError

USER, ASSISTANT = "user", "assistant"
ROLES_BEFORE = ("system", "developer")


@dataclass(frozen=True)
class Message:
    """One message; ``tokens`` is the length that a generated answer shall have, where the text does not say it."""

    role: str
    content: str
    tokens: int | None = None


@dataclass(frozen=True)
class Conversation:
    """``messages`` alternate, the user first, perhaps after a system message."""

    id: str
    messages: Sequence[Message]

    @property
    def first_turn(self) -> int:
        """Index of the first message of the user."""
        return 1 if self.messages[0].role in ROLES_BEFORE else 0


def parse_conversations(source: str, content: Any, max_turns: int | None = None) -> list[Conversation]:
    """A JSON list of ``{"id", "messages": [{"role", "content"}, ...]}``; ids must differ.

    ``max_turns`` keeps so many messages of each, answers included. Raises :class:`WorkloadError` naming what is wrong.
    """
    if not isinstance(content, list) or not content:
        raise WorkloadError(f"{source} is no list of conversations; give [{{id, messages: [{{role, content}}, ...]}}]")
    conversations = [_conversation(source, number, entry, max_turns) for number, entry in enumerate(content, 1)]
    ids = [conversation.id for conversation in conversations]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise WorkloadError(f"{source} has two conversations with the id {twice}; ids must differ")
    return conversations


def read_json(path: Path) -> Any:
    """The JSON in ``path``; raises :class:`WorkloadError` if it has none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path} is no JSON ({error}); repair it") from None


def write_conversations(path: Path, conversations: Sequence[tuple[str, Sequence[dict[str, str]]]]) -> None:
    """Write ids and messages in the form that :func:`parse_conversations` reads."""
    content = [{"id": id_, "messages": list(messages)} for id_, messages in conversations]
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; give another --output-file") from None


def _conversation(source: str, number: int, entry: Any, max_turns: int | None) -> Conversation:
    where = f"{source}, conversation {number}"
    if not isinstance(entry, dict) or "messages" not in entry or "id" not in entry:
        raise WorkloadError(f"{where} needs id and messages; repair it")
    listed = entry["messages"]
    if not isinstance(listed, list) or not listed:
        raise WorkloadError(f"{where} has no messages; repair it")
    messages = []
    for message in listed:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str) or "role" not in message:
            raise WorkloadError(f"{where} has a message without role or content; repair it")
        messages.append(Message(str(message["role"]), message["content"]))
    conversation = Conversation(str(entry["id"]), messages)
    expected = USER
    for message in messages[conversation.first_turn :]:
        if message.role != expected:
            raise WorkloadError(
                f"{where} has {message.role} where {expected} must speak; they alternate, the user first"
            )
        expected = ASSISTANT if expected == USER else USER
    if len(messages) == conversation.first_turn:
        raise WorkloadError(f"{where} has no message of the user; repair it")
    return Conversation(conversation.id, messages if max_turns is None else messages[:max_turns])
