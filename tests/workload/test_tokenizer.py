"""Tokenizers: the one that ships, one a model brings, and broken ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers.models import BPE

from simserve.errors import ModelError, RequestError
from simserve.resources import data_dir
from simserve.workload import Tokenizer, load_tokenizer, render_chat
from simserve.workload.tokenizer import LONG_TEXT_CHARACTERS, LONG_TEXT_TOKENS

SHIPPED = data_dir("models") / "simserve/tiny-llama"


@pytest.fixture(scope="module", name="tiny")
def shipped_tokenizer() -> Tokenizer:
    return load_tokenizer()


def test_without_a_model_folder_the_small_one_that_ships_is_used(tiny: Tokenizer) -> None:
    assert tiny.is_fallback
    assert (tiny.name, tiny.vocab_size) == ("simserve/tiny-llama", 2048)
    assert tiny.decode(tiny.encode("The kettle is on the stove.")) == "The kettle is on the stove."
    assert len(tiny.encode("The kettle is on the stove.")) == 7


@given(text=st.text())
def test_any_text_comes_back_unchanged(tiny: Tokenizer, text: str) -> None:
    assert tiny.decode(tiny.encode(text)) == text


@given(text=st.text())
def test_the_pieces_of_a_text_join_to_it(tiny: Tokenizer, text: str) -> None:
    ids, pieces = tiny.split(text)
    assert ids == tiny.encode(text)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_models_own_tokenizer_is_preferred(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "tokenizer.json", tmp_path)
    own = load_tokenizer(tmp_path)
    assert not own.is_fallback
    assert own.name == tmp_path.name


def test_a_folder_without_a_tokenizer_falls_back(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path).is_fallback


def test_truncation_and_special_tokens_that_a_file_asks_for_are_left_out(tmp_path: Path) -> None:
    """Token counts of prompts must be those of the text: neither cut at 4 nor padded."""
    content = json.loads((SHIPPED / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert len(load_tokenizer(tmp_path).encode("one two three four five six seven")) > 6


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_a_broken_tokenizer_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer that SimServe can read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("token_id", [2048, -1, 2**40])
def test_an_unknown_token_id_is_refused(tiny: Tokenizer, token_id: int) -> None:
    with pytest.raises(RequestError, match=f"token id {token_id} is not in the vocabulary"):
        tiny.decode([5, token_id])


def test_half_a_surrogate_pair_is_refused(tiny: Tokenizer) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        tiny.encode("\ud800")


def test_a_chat_becomes_one_prompt_that_ends_with_the_assistants_turn(tiny: Tokenizer) -> None:
    prompt = render_chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    assert prompt == "<|system|>\nBe brief.\n<|user|>\nHello\n<|assistant|>\n"


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_each_role_marker_is_one_token_of_the_shipped_vocabulary(tiny: Tokenizer, role: str) -> None:
    assert len(tiny.encode(f"<|{role}|>")) == 1


def test_the_shipped_files_agree_with_the_models_config(tiny: Tokenizer) -> None:
    model = json.loads((SHIPPED / "config.json").read_text())
    config = json.loads((SHIPPED / "tokenizer_config.json").read_text())
    assert model["vocab_size"] == tiny.vocab_size
    assert tiny.encode(config["bos_token"]) == [model["bos_token_id"]]
    assert tiny.encode(config["eos_token"]) == [model["eos_token_id"]]


def test_the_shipped_tokenizer_is_small() -> None:
    assert (SHIPPED / "tokenizer.json").stat().st_size < 200_000


@given(text=st.text())
def test_the_bytes_of_the_tokens_join_to_the_text(tiny: Tokenizer, text: str) -> None:
    assert b"".join(tiny.token_bytes(token_id) for token_id in tiny.encode(text)) == text.encode()


def test_a_special_token_stands_for_its_name_and_an_unknown_id_for_nothing(tiny: Tokenizer) -> None:
    assert tiny.token_bytes(2) == b"<|eos|>"
    assert tiny.token_bytes(10**6) == tiny.token_bytes(-1) == b""


def test_tokens_of_sentencepiece_are_read_too() -> None:
    """Its spaces are low lines, and a byte without a token of its own is written in hexadecimal."""
    vocabulary = {"<unk>": 0, "\u2581Hi": 1, "<0xE2>": 2}
    inner = HuggingFaceTokenizer(BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer = Tokenizer(inner, "sentences", is_fallback=False)
    assert [tokenizer.token_bytes(one) for one in (1, 2)] == [b" Hi", b"\xe2"]


class TestLongTexts:
    """They are read and written in another way, so that other threads go on meanwhile: nobody can tell."""

    @pytest.mark.parametrize("add_special_tokens", [False, True])
    def test_their_tokens_are_those_of_the_library(self, add_special_tokens: bool) -> None:
        text = "It was a bright cold day in April, \u00e9\u00e9n twee \U0001f600 and 13 more. " * 200
        assert len(text) > LONG_TEXT_CHARACTERS
        own = load_tokenizer()
        expected = own._inner.encode(text, add_special_tokens=add_special_tokens).ids
        assert own.encode(text, add_special_tokens=add_special_tokens) == expected
        assert len(expected) > LONG_TEXT_TOKENS
        assert own.text_of(expected) == own._inner.decode(expected, skip_special_tokens=False)

    def test_half_of_a_surrogate_pair_is_refused_in_them_too(self) -> None:
        with pytest.raises(RequestError, match="surrogate"):
            load_tokenizer().encode("x" * LONG_TEXT_CHARACTERS + "\ud800")
