"""Simulated answers: readable, of exactly the tokens asked for, and the same for the same key."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from simserve.errors import ModelError
from simserve.workload import SyntheticText, Tokenizer, load_tokenizer
from simserve.workload.text import SENTENCES

KEYS = st.text(max_size=20) | st.binary(max_size=20)
COUNTS = st.integers(1, 400)


@pytest.fixture(scope="module", name="tiny")
def shipped_tokenizer() -> Tokenizer:
    return load_tokenizer()


@pytest.fixture(scope="module", name="writer")
def writer_for_the_shipped_tokenizer(tiny: Tokenizer) -> SyntheticText:
    return SyntheticText(tiny)


@given(key=KEYS, count=COUNTS)
def test_an_answer_has_exactly_the_tokens_asked_for(
    tiny: Tokenizer, writer: SyntheticText, key: str | bytes, count: int
) -> None:
    answer = writer.answer(key, count)
    assert len(answer.pieces) == count
    assert tiny.encode("".join(answer.pieces)) == answer.token_ids


def test_an_answer_may_be_cut_after_any_token(tiny: Tokenizer, writer: SyntheticText) -> None:
    for seed in range(5):
        answer = writer.answer(f"seed {seed}", 400)
        for count in range(1, 401):
            assert tiny.encode("".join(answer.pieces[:count])) == answer.token_ids[:count]


@given(key=KEYS, short=COUNTS, long=COUNTS)
def test_a_longer_answer_begins_with_the_shorter(
    writer: SyntheticText, key: str | bytes, short: int, long: int
) -> None:
    assert writer.answer(key, short).pieces[:long] == writer.answer(key, long).pieces[:short]


def test_every_piece_is_what_its_token_decodes_to(tiny: Tokenizer, writer: SyntheticText) -> None:
    answer = writer.answer("a question", 300)
    assert [tiny.decode([token_id]) for token_id in answer.token_ids] == answer.pieces


def test_an_answer_reads_as_english_sentences(writer: SyntheticText) -> None:
    text = "".join(writer.answer("a question", 400).pieces)
    known = set(SENTENCES.read_text().splitlines())
    sentences = [sentence + "." for sentence in text.split(". ")]
    assert text[0].isupper()
    assert set(sentences[:-1]) <= known
    assert all(one != two for one, two in pairwise(sentences))
    assert len(set(sentences)) > 15


def test_other_keys_give_other_answers(writer: SyntheticText) -> None:
    assert len({"".join(writer.answer(str(seed), 40).pieces) for seed in range(200)}) == 200


def test_text_and_its_bytes_are_the_same_key(writer: SyntheticText) -> None:
    assert writer.answer("naïve", 50) == writer.answer("naïve".encode(), 50)


def test_answers_are_the_same_in_every_process(writer: SyntheticText) -> None:
    code = "from simserve.workload import *; print(SyntheticText(load_tokenizer()).answer('key', 60).token_ids)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(writer.answer("key", 60).token_ids)


def test_tokenizers_that_work_on_other_principles_are_written_for_too(foreign: Tokenizer) -> None:
    writer = SyntheticText(foreign)
    for seed in range(10):
        for count in (1, 2, 3, 17, 100, 400):
            answer = writer.answer(f"seed {seed}", count)
            assert len(answer.pieces) == count
            assert foreign.encode("".join(answer.pieces)) == answer.token_ids


def test_a_tokenizer_that_allows_no_exact_text_says_so() -> None:
    """Here a whole answer is one token, whatever its length."""
    inner = HuggingFaceTokenizer(models.WordLevel({"x": 0}, unk_token="x"))
    with pytest.raises(ModelError, match="no text of an exact token count"):
        SyntheticText(Tokenizer(inner, name="strange", is_fallback=False))


def sentencepiece_like() -> HuggingFaceTokenizer:
    """As Llama 2: spaces become ▁, one is put in front, words are merged without being split apart first."""
    inner = HuggingFaceTokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    train(inner)
    return inner


def wordpiece_like() -> HuggingFaceTokenizer:
    """As BERT: lower case, no spaces in the vocabulary."""
    inner = HuggingFaceTokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    train(inner)
    return inner


def characters() -> HuggingFaceTokenizer:
    """One token per character."""
    inner = HuggingFaceTokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    inner.decoder = decoders.Fuse()
    train(inner)
    return inner


@pytest.fixture(scope="module", params=[sentencepiece_like, wordpiece_like, characters], name="foreign")
def foreign_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(request.param(), name=request.param.__name__, is_fallback=False)


def train(inner: HuggingFaceTokenizer) -> None:
    """Teach ``inner`` a vocabulary of 600 from single words, so that none spans two."""
    kind = trainers.WordPieceTrainer if isinstance(inner.model, models.WordPiece) else trainers.BpeTrainer
    trainer = kind(vocab_size=600, show_progress=False, special_tokens=["<unk>", "[UNK]"])
    inner.train_from_iterator(SENTENCES.read_text().split(), trainer)
