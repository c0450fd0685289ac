"""What would change the answer and an engine cannot do: refused with a sentence, never read and ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simserve.server.errors import ApiError


@dataclass(frozen=True)
class Unsupported:
    """What one kind of engine, called ``engine`` in errors, cannot honour: ``fields``, and ``parts`` of a message.

    ``text_alone`` says that it can be made to write neither JSON nor a tool call.
    """

    engine: str
    fields: tuple[str, ...]
    parts: tuple[str, ...]
    text_alone: bool


BY_NO_ENGINE = (
    "logprob_token_ids",
    "use_beam_search",
    "prompt_embeds",
    "audio",
    "chat_template",
    "documents",
    "functions",
    "function_call",
    "prediction",
    "web_search_options",
    "stream_interval",
    "repetition_detection",
    "watermarking",
    "return_prompt_text",
    "return_token_offsets",
    "return_weight_versions",
    "mm_payload",
    "kv_transfer_params",
    "ec_transfer_params",
)
"""Fields that no engine can honour."""

TEXT_PARTS = ("text", "input_text", "output_text", "refusal")

MEDIA_PARTS = ("image_url", "video_url", "input_audio")

SIMULATED = Unsupported("simulated", BY_NO_ENGINE, (*TEXT_PARTS, *MEDIA_PARTS), text_alone=False)
TORCH = Unsupported(
    "torch",
    (
        *BY_NO_ENGINE,
        "suffix",
        "prompt_logprobs",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "allowed_token_ids",
        "bad_words",
        "cache_salt",
        "reasoning_effort",
        "thinking_token_budget",
    ),
    TEXT_PARTS,
    text_alone=True,
)

# What these fields may say without asking for anything. Zero is not among them: `logprobs: 0` asks for logprobs.
_ASKS_NOTHING: tuple[Any, ...] = (None, False, "", [], {})


def refuse_unsupported(fields: dict[str, Any], unsupported: Unsupported) -> None:
    """Raise :class:`ApiError` (400) if the body asks for something that the engine cannot give."""
    engine = unsupported.engine
    if not fields.keys().isdisjoint(unsupported.fields):
        for name in unsupported.fields:
            if name in fields and not _asks_nothing(fields[name]):
                raise _refusal(engine, name)
    modalities = fields.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise _refusal(engine, "modalities", "other than text")
    if unsupported.text_alone:
        _refuse_more_than_text(engine, fields)
    _refuse_parts(unsupported, fields.get("messages"))


def _asks_nothing(value: object) -> bool:
    return any(type(value) is type(nothing) and value == nothing for nothing in _ASKS_NOTHING)


def _refuse_more_than_text(engine: str, fields: dict[str, Any]) -> None:
    if fields.get("best_of") not in (None, 1):
        raise _refusal(engine, "best_of", "above 1")
    form, choice = fields.get("response_format"), fields.get("tool_choice")
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in (None, "text"):
        raise _refusal(engine, "response_format", f"of type {kind!r}")
    if choice == "required" or isinstance(choice, dict):
        raise _refusal(engine, "tool_choice", "that forces a tool call")
    if fields.get("echo") is True and fields.get("logprobs") is not None:
        raise _refusal(engine, "echo", "with `logprobs`")
    if fields.get("echo") is True and fields.get("max_tokens") == 0:
        raise _refusal(engine, "max_tokens", "of 0")


def _refuse_parts(unsupported: Unsupported, messages: object) -> None:
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in unsupported.parts:
                raise ApiError(
                    f"Content of type {kind!r} is not supported by the {unsupported.engine} engine yet;"
                    f" send {' or '.join(one for one in unsupported.parts if one not in TEXT_PARTS[1:])}.",
                    param="messages",
                )


def _refusal(engine: str, name: str, what: str = "") -> ApiError:
    subject = f"`{name}` {what}".strip()
    return ApiError(
        f"{subject} is not supported by the {engine} engine yet; leave it out.", param=name, code="unsupported"
    )
