"""Chat messages as one prompt text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def render_chat(messages: Sequence[Mapping[str, str]], *, answer: bool = True, continue_last: bool = False) -> str:
    """The prompt for ``messages`` (``role`` and ``content`` each), ending where the assistant is to speak.

    Without ``answer`` it ends with the last message, and with ``continue_last`` in the middle of it.

    One layout for all models, close to ChatML: ``<|role|>``, a line break, the content, a line break; last
    ``<|assistant|>`` and a line break. In the shipped tokenizer each role marker is one token. Other tokenizers spend
    a few more tokens on it, about what their own template would. A model's own Jinja template is not run: the words of
    a prompt decide no timing, only its length and what it shares with others do.
    """
    turns = [f"<|{message['role']}|>\n{message['content']}\n" for message in messages]
    if continue_last:
        turns[-1] = turns[-1].removesuffix("\n")
    return "".join([*turns, "<|assistant|>\n"] if answer else turns)
