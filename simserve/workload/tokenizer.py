"""Text to token ids and back: the model's own tokenizer where it has one, else the small one that ships."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from simserve.errors import ModelError, RequestError
from simserve.resources import data_dir

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
FALLBACK_MODEL = "simserve/tiny-llama"


def load_tokenizer(model_folder: Path | None = None) -> Tokenizer:
    """The tokenizer of ``model_folder``, or the small one that ships if there is no folder or no tokenizer.json in it.

    Raises :class:`ModelError` for a tokenizer.json that cannot be understood.
    """
    if model_folder is not None and (model_folder / TOKENIZER_FILE).is_file():
        return Tokenizer(_read(model_folder / TOKENIZER_FILE), name=model_folder.name, is_fallback=False)
    shipped = data_dir("models") / FALLBACK_MODEL / TOKENIZER_FILE
    return Tokenizer(_read(shipped), name=FALLBACK_MODEL, is_fallback=True)


class Tokenizer:
    """A Hugging Face tokenizer, reduced to what SimServe needs; adds no special tokens of its own accord.

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
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.added_per_prompt: int = inner.num_special_tokens_to_add(False)

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text``. Raises :class:`RequestError` for text that is not valid Unicode."""
        ids: list[int] = self._encoding(text).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ``token_ids``, special tokens included. Raises :class:`RequestError` for an unknown id."""
        for token_id in token_ids:
            if not self._knows(token_id):
                raise RequestError(f"token id {token_id} is not in the vocabulary of {self.name}")
        text: str = self._inner.decode(list(token_ids), skip_special_tokens=False)
        return text

    def split(self, text: str) -> tuple[list[int], list[str]]:
        """The token ids of ``text`` and, one for one, the stretch of ``text`` that each stands for.

        The stretches join to ``text``. Where several tokens share one character, it goes to the first of them.
        """
        encoding = self._encoding(text)
        ends = [end for _, end in encoding.offsets]
        # Cut at ends only: some tokenizers leave the space before a word out of its offsets.
        cuts = [0, *ends[:-1], len(text)] if ends else [0]
        return encoding.ids, [text[start:end] for start, end in pairwise(cuts)]

    def _encoding(self, text: str) -> tokenizers.Encoding:
        try:
            return self._inner.encode(text, add_special_tokens=False)
        except TypeError as error:
            raise RequestError("the text has half of a surrogate pair; send valid Unicode") from error

    def _knows(self, token_id: int) -> bool:
        try:
            return self._inner.id_to_token(token_id) is not None
        except OverflowError:
            return False


def _read(path: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as HuggingFaceTokenizer  # 30 ms that only users of text pay

    try:
        inner = HuggingFaceTokenizer.from_file(str(path))
    except Exception as error:  # the library raises the bare class, for unreadable and malformed files alike
        raise ModelError(f"{path} is not a tokenizer that SimServe can read ({error}); download it again") from error
    inner.no_truncation()
    inner.no_padding()
    return inner
