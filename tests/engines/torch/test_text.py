"""What leaves as text: whole characters, all of them, and nothing of a stop string."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.engines.base import SamplingParams
from simserve.engines.torch.sequence import Sequence
from simserve.engines.torch.text import AnswerText
from simserve.workload import load_tokenizer

TOKENIZER = load_tokenizer()
WORDS = st.text(st.sampled_from("ab \nÜé日本語🎉👩‍👧"), max_size=30)


def answer(text: str, **params: object) -> tuple[list[str], AnswerText]:
    """The pieces in which ``text`` leaves, token by token, up to where it stops; the last is the rest."""
    sequence = Sequence("a", TOKENIZER.encode("Say:"), 99, SamplingParams(**params))  # type: ignore[arg-type]
    made = AnswerText(TOKENIZER, sequence)
    pieces = []
    for token_id in TOKENIZER.encode(text):
        pieces.append(made.push(token_id))
        if made.stopped_by is not None:
            break
    return [*pieces, made.finish()], made


@given(WORDS)
def test_pieces_join_to_the_text_and_hold_no_half_characters(text: str) -> None:
    pieces, _ = answer(text)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_of_several_tokens_leaves_when_it_is_complete() -> None:
    assert len(TOKENIZER.encode("🎉")) > 1
    pieces, _ = answer("a🎉b")
    assert [piece for piece in pieces if piece] == ["a", "🎉", "b"]


def test_an_answer_cut_within_a_character_shows_it() -> None:
    sequence = Sequence("a", [], 99, SamplingParams())
    made = AnswerText(TOKENIZER, sequence)
    assert made.push(TOKENIZER.encode("🎉")[0]) == ""
    assert made.finish() == "\ufffd"


def test_bytes_that_never_become_a_character_do_not_wait_for_ever() -> None:
    made = AnswerText(TOKENIZER, Sequence("a", [], 99, SamplingParams()))
    half = TOKENIZER.encode("🎉")[0]
    assert any(made.push(half) for _ in range(40))


@given(st.lists(st.integers(0, 2500), max_size=60))
def test_any_tokens_at_all_give_some_text(token_ids: list[int]) -> None:
    """Also ids that the tokenizer does not have, as models with padded vocabularies produce."""
    made = AnswerText(TOKENIZER, Sequence("a", [], 99, SamplingParams(skip_special_tokens=False)))
    text = "".join([*map(made.push, token_ids), made.finish()])
    expected = TOKENIZER.text_of(token_ids)
    assert text.replace("\ufffd", "") == expected.replace("\ufffd", "")


def test_special_tokens_leave_no_text_unless_asked_for() -> None:
    special = TOKENIZER.encode("a<|assistant|>b")
    for skip, text in ((True, "ab"), (False, "a<|assistant|>b")):
        made = AnswerText(TOKENIZER, Sequence("a", [], 99, SamplingParams(skip_special_tokens=skip)))
        assert "".join([*map(made.push, special), made.finish()]) == text


@settings(max_examples=300)
@given(st.text("ab", max_size=25), st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3))
def test_text_ends_before_the_stop_string_that_is_complete_first(text: str, stops: list[str]) -> None:
    """Letter by letter, against the obvious search; what has left is never taken back."""
    expected = text
    for end in range(1, len(text) + 1):
        found = [text[:end].rfind(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            expected = text[: min(found)]
            break
    made = AnswerText(TOKENIZER, Sequence("a", TOKENIZER.encode("Say:"), 99, SamplingParams(stop=tuple(stops))))
    left = ""
    for token_id in [TOKENIZER.encode(letter)[0] for letter in text]:
        left += made.push(token_id)
        assert expected.startswith(left)
        if made.stopped_by is not None:
            break
    assert left + made.finish() == expected


def test_a_stop_string_over_several_tokens_never_leaves_in_part() -> None:
    pieces, made = answer("one END two", stop=("END", "###"))
    assert "".join(pieces) == "one "
    assert made.stopped_by == "END"
    assert len(TOKENIZER.encode("END")) > 1


def test_a_stop_string_is_kept_if_asked_for() -> None:
    pieces, _ = answer("one END two", stop=("END",), include_stop=True)
    assert "".join(pieces) == "one END"


def test_what_only_looked_like_a_stop_string_leaves_after_all() -> None:
    pieces, made = answer("one EN", stop=("END",))
    assert "".join(pieces) == "one EN"
    assert made.stopped_by is None


def test_no_stop_before_it_may() -> None:
    made = AnswerText(TOKENIZER, Sequence("a", [], 99, SamplingParams(stop=("b",))))
    a, b = TOKENIZER.encode("a")[0], TOKENIZER.encode("b")[0]
    assert made.push(a, may_stop=False) + made.push(b, may_stop=False) == "ab"
    assert made.push(a) + made.push(b) == "a"
    assert made.stopped_by == "b"
