"""Text to token ids and back: the model's own tokenizer where it has one, else the small one that ships."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from simserve.errors import ModelError, RequestError
from simserve.resources import data_dir

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
FALLBACK_MODEL = "simserve/tiny-llama"

BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
SPACE_MARK = "\u2581"
"""How tokenizers of SentencePiece's kind write a byte and a space."""


def load_tokenizer(model_folder: Path | None = None) -> Tokenizer:
    """The tokenizer of ``model_folder``, or the small one that ships if there is no folder or no tokenizer.json in it.

    Raises :class:`ModelError` for a tokenizer.json that cannot be understood.
    """
    if model_folder is not None and (model_folder / TOKENIZER_FILE).is_file():
        return Tokenizer(_read(model_folder / TOKENIZER_FILE), name=model_folder.name, is_fallback=False)
    shipped = data_dir("models") / FALLBACK_MODEL / TOKENIZER_FILE
    return Tokenizer(_read(shipped), name=FALLBACK_MODEL, is_fallback=True)


LONG_TEXT_CHARACTERS, LONG_TEXT_TOKENS = 4_000, 1_000
"""Longer texts are read, and written, in the library's way for many: that lets other threads go on meanwhile."""


class Tokenizer:
    """A Hugging Face tokenizer, reduced to what SimServe needs; adds no special tokens unless told to.

    ``is_fallback`` says that the model came without a tokenizer: its token counts are then those of the small
    shipped vocabulary, which takes about 2.7 characters of English per token where large ones take 4.
    ``special_ids`` mark things such as the end of a text; ``added_per_prompt`` of them a server puts around a prompt.
    """

    def __init__(self, inner: tokenizers.Tokenizer, name: str, is_fallback: bool) -> None:
        self._inner = inner
        self.name = name
        self.is_fallback = is_fallback
        self.vocab_size: int = inner.get_vocab_size()
        added = inner.get_added_tokens_decoder()
        self._added = frozenset(added)
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.added_per_prompt: int = inner.num_special_tokens_to_add(False)
        self._is_byte_level = inner.decoder is not None and b"ByteLevel" in inner.decoder.__getstate__()

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """The token ids of ``text``, with those that a real model expects around it if ``add_special_tokens``.

        Raises :class:`RequestError` for text that is not valid Unicode.
        """
        if len(text) <= LONG_TEXT_CHARACTERS:
            ids: list[int] = self._encoding(text, add_special_tokens=add_special_tokens).ids
            return ids
        try:
            (encoding,) = self._inner.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        except TypeError as error:
            raise _not_unicode() from error
        long_ids: list[int] = encoding.ids
        return long_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ``token_ids``, special tokens included. Raises :class:`RequestError` for an unknown id."""
        for token_id in token_ids:
            if not self._knows(token_id):
                raise RequestError(f"token id {token_id} is not in the vocabulary of {self.name}")
        text: str = self._inner.decode(list(token_ids), skip_special_tokens=False)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for, which may end within a character; none for an id without a token."""
        token = self._inner.id_to_token(token_id) if self._knows(token_id) else None
        if token is None:
            return b""
        if token_id in self._added:
            return token.encode()
        if self._is_byte_level:
            return bytes(byte for character in token for byte in _bytes_of(character))
        byte = BYTE_TOKEN.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE_MARK, " ").encode()

    def text_of(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ``token_ids`` as far as they are known: a model may have more ids than its tokenizer."""
        if len(token_ids) > LONG_TEXT_TOKENS:
            (text,) = self._inner.decode_batch([list(token_ids)], skip_special_tokens=skip_special_tokens)
        else:
            text = self._inner.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return str(text)

    def stream(self, before: Sequence[int], *, skip_special_tokens: bool) -> TextStream:
        """Text token by token, behind the tokens ``before``."""
        return TextStream(self._inner, before, skip_special_tokens)

    def split(self, text: str) -> tuple[list[int], list[str]]:
        """The token ids of ``text`` and, one for one, the stretch of ``text`` that each stands for.

        The stretches join to ``text``. Where several tokens share one character, it goes to the first of them.
        """
        encoding = self._encoding(text)
        ends = [end for _, end in encoding.offsets]
        # Cut at ends only: some tokenizers leave the space before a word out of its offsets.
        cuts = [0, *ends[:-1], len(text)] if ends else [0]
        return encoding.ids, [text[start:end] for start, end in pairwise(cuts)]

    def _encoding(self, text: str, *, add_special_tokens: bool = False) -> tokenizers.Encoding:
        try:
            return self._inner.encode(text, add_special_tokens=add_special_tokens)
        except TypeError as error:
            raise _not_unicode() from error

    def _knows(self, token_id: int) -> bool:
        try:
            return self._inner.id_to_token(token_id) is not None
        except OverflowError:
            return False


def _not_unicode() -> RequestError:
    return RequestError("the text has half of a surrogate pair; send valid Unicode")


class TextStream:
    """Decodes token by token, holding back characters that are not complete."""

    def __init__(self, inner: tokenizers.Tokenizer, before: Sequence[int], skip_special_tokens: bool) -> None:
        from tokenizers.decoders import DecodeStream

        self._inner = inner
        self._skip_special_tokens = skip_special_tokens
        self._stream = DecodeStream(ids=list(before), skip_special_tokens=skip_special_tokens)

    def step(self, token_id: int) -> str | None:
        """The text that one more token completes, None if it does not complete any."""
        try:
            text: str | None = self._stream.step(self._inner, token_id)
        except Exception:  # the bare class: text before the token has changed, which broken bytes can do
            from tokenizers.decoders import DecodeStream

            self._stream = DecodeStream(ids=[], skip_special_tokens=self._skip_special_tokens)
            text = self._stream.step(self._inner, token_id)
        return text


@cache
def _byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level tokenizers write bytes: printable ones as they are, the rest from 256 on.

    This is the alphabet of GPT-2, which all byte-level tokenizers share.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


def _bytes_of(character: str) -> bytes:
    byte = _byte_alphabet().get(character)
    return character.encode() if byte is None else bytes([byte])


def _read(path: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as HuggingFaceTokenizer  # 30 ms that only users of text pay

    try:
        inner = HuggingFaceTokenizer.from_file(str(path))
    except Exception as error:  # the library raises the bare class, for unreadable and malformed files alike
        raise ModelError(f"{path} is not a tokenizer that SimServe can read ({error}); download it again") from error
    inner.no_truncation()
    inner.no_padding()
    return inner
