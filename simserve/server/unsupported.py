"""What would change the answer and an engine cannot do: refused with a sentence, never read and ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simserve.server.errors import ApiError


@dataclass(frozen=True)
class Unsupported:
    """The fields that one kind of engine, called ``engine`` in errors, cannot honour."""

    engine: str
    fields: tuple[str, ...]


_BY_NO_ENGINE = (
    "prompt_logprobs",
    "suffix",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "use_beam_search",
    "allowed_token_ids",
    "bad_words",
    "truncate_prompt_tokens",
    "prompt_embeds",
    "audio",
    "continue_final_message",
    "return_token_ids",
)

SIMULATED = Unsupported(
    "simulated", (*_BY_NO_ENGINE, "logprobs", "top_logprobs", "logit_bias", "echo", "stop_token_ids")
)
TORCH = Unsupported("torch", (*_BY_NO_ENGINE, "chat_template", "documents"))

# What these fields may say without asking for anything. Zero is not among them: `logprobs: 0` asks for logprobs.
_ASKS_NOTHING: tuple[Any, ...] = (None, False, "", [], {})


def refuse_unsupported(fields: dict[str, Any], unsupported: Unsupported) -> None:
    """Raise :class:`ApiError` (400) if the body asks for something that the engine cannot give."""
    engine = unsupported.engine
    for name in unsupported.fields:
        if name in fields and not _asks_nothing(name, fields[name]):
            raise _refusal(engine, name)
    if fields.get("best_of") not in (None, 1):
        raise _refusal(engine, "best_of", "above 1")
    _refuse_format(engine, fields.get("response_format"))
    _refuse_forced_tool(engine, fields.get("tool_choice"))
    _refuse_other_modalities(engine, fields.get("messages"))


def _asks_nothing(name: str, value: object) -> bool:
    if name == "top_logprobs" and value == 0:
        return True
    return any(type(value) is type(nothing) and value == nothing for nothing in _ASKS_NOTHING)


def _refuse_format(engine: str, value: object) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    if value is not None and kind is None:
        raise ApiError("Invalid `response_format`: it must be an object with a `type`.", param="response_format")
    if kind not in (None, "text"):
        raise _refusal(engine, "response_format", f"of type {kind!r}")


def _refuse_forced_tool(engine: str, value: object) -> None:
    if value == "required" or isinstance(value, dict):
        raise _refusal(engine, "tool_choice", "that forces a tool call")


def _refuse_other_modalities(engine: str, messages: object) -> None:
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in ("text", "input_text"):
                raise ApiError(
                    f"Content of type {kind!r} is not supported by the {engine} engine yet; send text.",
                    param="messages",
                )


def _refusal(engine: str, name: str, what: str = "") -> ApiError:
    subject = f"`{name}` {what}".strip()
    return ApiError(
        f"{subject} is not supported by the {engine} engine yet; leave it out.", param=name, code="unsupported"
    )
