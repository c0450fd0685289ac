"""Chat messages as the prompt that a model was trained on: its own Jinja template, run in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from simserve.errors import ModelError, RequestError
from simserve.workload import render_chat


class ChatTemplate:
    """Renders conversations as ``transformers.apply_chat_template`` does."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], name: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        self._special_tokens = dict(special_tokens)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelError(f"{name} has a chat template that is not valid Jinja ({error})") from None

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **more: Any) -> str:
        """The prompt for ``messages``; ``more`` are further variables of the template, such as ``tools``.

        Raises :class:`RequestError` if the template refuses the conversation.
        """
        variables = self._special_tokens | {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            return self._template.render(variables | more)
        except (TemplateError, TypeError, ValueError) as error:
            raise RequestError(f"the model's chat template refuses these messages: {error}") from error


class PlainChat:
    """What SimServe uses for models without a template; see :func:`simserve.workload.render_chat`."""

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **more: Any) -> str:
        """The prompt for ``messages``, whose contents must be texts."""
        return render_chat(messages)


def load_chat_template(folder: Path | None) -> ChatTemplate | PlainChat:
    """The template in chat_template.jinja or tokenizer_config.json of ``folder``; raises :class:`ModelError`."""
    config = _tokenizer_config(folder)
    source = config.get("chat_template")
    if isinstance(source, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if folder is not None and (folder / "chat_template.jinja").is_file():
        source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if not isinstance(source, str):
        return PlainChat()
    tokens = {key: _text(value) for key, value in config.items() if key.endswith("_token") and _text(value)}
    return ChatTemplate(source, tokens, str(folder))


def _tokenizer_config(folder: Path | None) -> dict[str, Any]:
    file = folder / "tokenizer_config.json" if folder is not None else None
    if file is None or not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: not valid JSON ({error})") from None
    return config if isinstance(config, dict) else {}


def _text(token: object) -> str:
    """A special token is a text, or an object with one."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)  # Jinja's own escapes HTML


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(layout: str) -> str:
    return datetime.now().strftime(layout)
