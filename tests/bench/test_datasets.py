"""What servers are asked: the rules of each data set, with a tokenizer and without."""

from __future__ import annotations

import io
import json
import math
import sys
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simserve.bench.backends import find_backend
from simserve.bench.datasets import Drawn, Order, draw_samples
from simserve.bench.datasets.random_text import range_ratios
from simserve.bench.datasets.trace import shared_fraction
from simserve.bench.tokens import Estimate, TextTokenizer, TokenizerOptions, estimated_tokens, find_counter
from simserve.bench.tokens.counter import TransformersTokenizer
from simserve.errors import ConfigError, WorkloadError
from simserve.resources import data_dir
from simserve.workload import load_tokenizer, read_trace

SHARED = Path(__file__).resolve().parents[3] / "shared" / "traces"
TINY = TextTokenizer(load_tokenizer(), "tiny")

needs_traces = pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded traces are not beside this checkout")


def draw(name: str, count: int = 10, *, counter: Any = TINY, backend: str = "openai", **fields: Any) -> Drawn:
    order = Order(
        count=count, seed=fields.pop("seed", 0), counter=counter, backend=find_backend(backend),
        path=None if "path" not in fields else str(fields.pop("path")),
        **{name: fields.pop(name) for name in ("output_tokens", "shuffle", "oversample") if name in fields},
        settings=fields,
    )  # fmt: skip
    return draw_samples(name, order)


class TestTokens:
    def test_scripts_are_counted_apart(self) -> None:
        assert estimated_tokens("") == 0
        assert estimated_tokens("abcdefgh") == 2
        assert estimated_tokens("你好世界你好") == 4
        assert estimated_tokens("abcd你好世") == 3

    def test_a_model_that_ships_with_its_tokenizer_is_exact(self) -> None:
        counter, note = find_counter(TokenizerOptions(), "simserve/tiny-llama")
        assert (counter.is_exact, counter.count("The kettle is on the stove."), note) == (True, 7, "")

    @pytest.mark.parametrize("model", ["gpt-4", "meta-llama/Llama-3.1-8B-Instruct", "no/such/thing", "a b"])
    def test_a_model_without_one_is_estimated_and_said_to_be(self, model: str) -> None:
        counter, note = find_counter(TokenizerOptions(), model)
        assert not counter.is_exact
        assert "estimated" in note

    def test_a_folder_or_file_is_read(self) -> None:
        folder = data_dir("models") / "simserve/tiny-llama"
        for name in (folder, folder / "tokenizer.json"):
            counter, note = find_counter(TokenizerOptions(str(name), trust_remote_code=False), "x")
            assert (counter.is_exact, note) == (True, "")

    def test_without_a_tokenizer_if_told_so(self) -> None:
        assert not find_counter(TokenizerOptions(skip=True), "simserve/tiny-llama").counter.is_exact

    @pytest.mark.parametrize("options", [{"mode": "hf"}, {"mode": "slow"}, {"trust_remote_code": True}])
    def test_transformers_counts_alike_and_knows_the_chat_template(self, options: dict[str, Any]) -> None:
        pytest.importorskip("transformers")
        folder = data_dir("models") / "simserve/tiny-llama"
        counter, _ = find_counter(TokenizerOptions(str(folder), **options), "x")
        assert isinstance(counter, TransformersTokenizer)
        assert counter.count("The kettle is on the stove.") == 7
        assert counter.decode(counter.encode("on the stove")) == "on the stove"
        assert len(counter.allowed_ids) == counter.vocab_size - len(load_tokenizer().special_ids)
        assert "hello" in str(counter.chat([{"role": "user", "content": "hello"}]))

    def test_one_that_cannot_be_had_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ConfigError, match="--tokenizer nobody/nothing: no tokenizer"):
            find_counter(TokenizerOptions("nobody/nothing"), "x")


class TestRandom:
    def test_prompts_have_exactly_the_tokens_that_were_asked_for(self) -> None:
        drawn = draw("random", 20, random_input_len=50, random_output_len=7, random_prefix_len=10)
        for sample in drawn.samples:
            assert TINY.count(str(sample.prompt)) == sample.input_tokens == 60
            assert (sample.output_tokens, sample.is_exact) == (7, True)

    def test_lengths_vary_by_the_ratio_and_no_more(self) -> None:
        settings = {"random_input_len": 100, "random_output_len": 10}
        samples = draw("random", 300, counter=Estimate(), random_range_ratio=0.3, **settings).samples
        assert {sample.output_tokens for sample in samples} == set(range(7, 14))
        lengths = {sample.input_tokens for sample in samples}
        assert 70 <= min(lengths) < max(lengths) <= 130
        only_out = draw("random", 50, counter=Estimate(), random_range_ratio='{"input": 0, "output": 0.5}', **settings)
        assert {sample.input_tokens for sample in only_out.samples} == {100}
        assert len({sample.output_tokens for sample in only_out.samples}) > 3

    def test_the_prefix_is_shared_and_the_rest_is_not(self) -> None:
        prompts = [str(one.prompt) for one in draw("random", 5, random_input_len=20, random_prefix_len=30).samples]
        ids = [TINY.encode(prompt) for prompt in prompts]
        common = next(at for at in range(50) if len({tuple(one[: at + 1]) for one in ids}) > 1)
        assert 25 <= common <= 45  # ids may merge, and halves of characters count for more
        assert len(set(prompts)) == 5

    def test_the_same_seed_is_the_same_text(self) -> None:
        first, again, other = (draw("random", 3, random_input_len=20, seed=seed).samples for seed in (1, 1, 2))
        assert first == again != other

    def test_without_a_tokenizer_characters_have_to_do(self) -> None:
        (sample,) = draw("random", 1, counter=Estimate(), random_input_len=500).samples
        assert (sample.input_tokens, sample.is_exact, len(str(sample.prompt))) == (500, False, 2000)

    def test_batches_for_embeddings(self) -> None:
        drawn = draw("random", 10, backend="embeddings", random_input_len=8, random_batch_size=4)
        assert [sample.sequences for sample in drawn.samples] == [4, 4, 2]
        assert drawn.samples[0].input_tokens == 32
        with pytest.raises(ConfigError, match="--random-batch-size is for embeddings"):
            draw("random", 10, random_batch_size=4)

    @pytest.mark.parametrize("ratio", [1.0, -0.1, "x", '{"input": 0.1}', "[1]"])
    def test_a_ratio_that_cannot_be(self, ratio: object) -> None:
        with pytest.raises(ConfigError, match="--random-range-ratio"):
            range_ratios(ratio)

    def test_a_prompt_of_nothing_cannot_be(self) -> None:
        with pytest.raises(ConfigError, match="must have a token"):
            draw("random", random_input_len=0)


class TestPrefixRepetition:
    @pytest.mark.parametrize("name", ["prefix_repetition", "prefix-repetition"])
    def test_each_prefix_comes_equally_often(self, name: str) -> None:
        settings = {"prefix_repetition_prefix_len": 40, "prefix_repetition_suffix_len": 10}
        drawn = draw(name, 23, counter=Estimate(), prefix_repetition_num_prefixes=4, **settings)
        beginnings = [str(sample.prompt)[:160] for sample in drawn.samples]
        assert sorted(beginnings.count(one) for one in set(beginnings)) == [5, 5, 5, 5]
        assert len({sample.prompt for sample in drawn.samples}) == 20
        assert "3 of 23 requests left out" in drawn.notes[0]

    def test_more_prefixes_than_requests_cannot_be(self) -> None:
        with pytest.raises(ConfigError, match="3 requests cannot have 10"):
            draw("prefix_repetition", 3)


class TestShareGpt:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        def entry(question: str, answer: str, who: str = "from", what: str = "value") -> dict[str, Any]:
            return {"conversations": [{who: "human", what: question}, {who: "gpt", what: answer}]}

        entries = [
            entry("What is the name of this river here?", "It is called the river of many stones and fish."),
            entry("Tell me about the old bridge, please.", "It was built by nobody in particular, long ago.", "role"),
            entry("Which way is it to the station now?", "Go left, then right, then ask again at the corner.", "role",
                  "content"),
            entry("Hi", "No."),  # too short
            entry("word " * 3000, "Too long a question for any answer at all, it seems."),
            {"conversations": [{"from": "human", "value": "Nobody answered this one, alas, not even once."}]},
            {"id": "empty", "conversations": []},
        ]  # fmt: skip
        (tmp_path / "sharegpt.json").write_text(json.dumps(entries))
        return tmp_path / "sharegpt.json"

    def test_first_turns_under_any_of_their_keys(self, path: Path) -> None:
        drawn = draw("sharegpt", 3, path=path, shuffle=False)
        assert [str(sample.prompt)[:8] for sample in drawn.samples] == ["What is ", "Tell me ", "Which wa"]
        assert drawn.samples[0].output_tokens == TINY.count("It is called the river of many stones and fish.")

    def test_too_few_are_drawn_again(self, path: Path) -> None:
        samples = draw("sharegpt", 50, path=path).samples
        assert (len(samples), len({sample.prompt for sample in samples})) == (50, 3)
        assert len(draw("sharegpt", 50, path=path, oversample=False).samples) == 3

    def test_a_forced_answer_length_lets_short_answers_through(self, path: Path) -> None:
        samples = draw("sharegpt", 9, path=path, output_tokens=5, counter=Estimate()).samples
        assert {sample.output_tokens for sample in samples} == {5}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("{", "is no JSON"),
            ("{}", "is no list"),
            ("[]", "no conversation of two turns"),
            (json.dumps([{"conversations": [{"value": "a"}, {"value": "b"}]}]), "has no usable sample"),
        ],
    )
    def test_bad_files_are_one_sentence(self, tmp_path: Path, content: str, said: str) -> None:
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(WorkloadError, match=said):
            draw("sharegpt", path=tmp_path / "bad.json")
        with pytest.raises(ConfigError, match="is no file"):
            draw("sharegpt", path=tmp_path / "missing.json")


class TestSonnet:
    def test_prompts_are_no_longer_than_asked_and_share_their_beginning(self) -> None:
        settings = {"sonnet_input_len": 300, "sonnet_prefix_len": 150, "sonnet_output_len": 9}
        samples = draw("sonnet", 8, counter=Estimate(), **settings).samples
        assert all(250 < sample.input_tokens <= 300 and sample.output_tokens == 9 for sample in samples)
        assert len({str(sample.prompt)[:450] for sample in samples}) == 1
        assert len({sample.prompt for sample in samples}) == 8

    def test_lines_of_ones_own(self, tmp_path: Path) -> None:
        (tmp_path / "verse.txt").write_text("Shall I compare thee\nto a summer's day?\n")
        (sample,) = draw("sonnet", 1, path=tmp_path / "verse.txt").samples
        assert "summer" in str(sample.prompt)

    def test_an_input_shorter_than_the_instruction_cannot_be(self) -> None:
        with pytest.raises(ConfigError, match="--sonnet-input-len"):
            draw("sonnet", sonnet_input_len=3)


class TestBurstGpt:
    @pytest.mark.parametrize(
        "header",
        [
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
        ],
    )
    def test_columns_are_found_by_name_in_both_versions(self, tmp_path: Path, header: str) -> None:
        rows = [("GPT-4", 30, 7), ("ChatGPT", 99, 9), ("GPT-4", 20, 0), ("GPT-4", 12, 3)]
        lines = [header]
        for model, asked, answered in rows:
            values = {"Model": model, "Request tokens": asked, "Response tokens": answered, "Timestamp": 1.0}
            lines.append(",".join(str(values.get(name, 0)) for name in header.split(",")))
        (tmp_path / "burst.csv").write_text("\n".join(lines))
        drawn = draw("burstgpt", 20, path=tmp_path / "burst.csv")
        assert {(one.input_tokens, one.output_tokens) for one in drawn.samples} == {(30, 7), (12, 3)}
        assert len(drawn.samples) == 20

    @needs_traces
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_the_published_schemas(self, version: str) -> None:
        drawn = draw("burstgpt", 3, path=SHARED / f"burstgpt_{version}_schema_fixture.csv", counter=Estimate())
        assert len(drawn.samples) == 3


class TestCustom:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "a.png").write_bytes(b"png")
        (tmp_path / "a.wav").write_bytes(b"wav")
        return tmp_path

    def write(self, folder: Path, *rows: dict[str, Any] | str) -> Path:
        path = folder / "custom.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return path

    def test_prompts_and_lengths(self, folder: Path) -> None:
        path = self.write(
            folder, {"prompt": "one two", "output_tokens": 5}, "", {"prompt": "three", "output_tokens": 6}
        )
        samples = draw("custom", 2, path=path, shuffle=False).samples
        assert [(sample.prompt, sample.output_tokens) for sample in samples] == [("one two", 256), ("three", 256)]
        as_in_row = draw("custom", 0, path=path, shuffle=False, custom_output_len=-1).samples
        assert [sample.output_tokens for sample in as_in_row] == [5, 6]

    def test_messages_images_and_sounds(self, folder: Path) -> None:
        path = self.write(
            folder,
            {"messages": [{"role": "user", "content": "hi"}]},
            {"prompt": "look", "image_files": ["a.png"]},
            {"audio": "a.wav"},
        )
        samples = draw("custom", 0, path=path, shuffle=False, backend="openai-chat").samples
        assert samples[0].messages == [{"role": "user", "content": "hi"}]
        assert [(one.kind, one.format) for one in samples[1].media + samples[2].media] == [
            ("image", "png"), ("audio", "wav"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("{", "line 1 is not valid JSON"),
            ("[1]", "line 1 is no JSON object"),
            ({"text": "x"}, "line 1 needs a prompt"),
            ({"prompt": "x", "image_files": "gone.png"}, "names gone.png"),
            ("", "is empty"),
        ],
    )
    def test_a_bad_row_is_named(self, folder: Path, row: Any, said: str) -> None:
        with pytest.raises(WorkloadError, match=said):
            draw("custom", path=self.write(folder, row))

    def test_a_row_without_its_length_is_named(self, folder: Path) -> None:
        with pytest.raises(WorkloadError, match="line 1 needs output_tokens"):
            draw("custom", path=self.write(folder, {"prompt": "x"}), custom_output_len=-1)

    def test_spec_bench_by_category(self, folder: Path) -> None:
        rows = [{"turns": [f"q{at}", "more"], "category": "math" if at % 2 else "qa"} for at in range(6)]
        path = self.write(folder, *rows)
        samples = draw("spec_bench", 3, path=path, spec_bench_category="math", shuffle=False).samples
        assert [sample.prompt for sample in samples] == ["q1", "q3", "q5"]
        with pytest.raises(WorkloadError, match="no row of the category poetry"):
            draw("spec_bench", path=path, spec_bench_category="poetry")


class TestTimedTrace:
    @pytest.fixture
    def mooncake(self, tmp_path: Path) -> Path:
        rows = [
            {"timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [1, 2]},
            {"timestamp": 500, "input_length": 1100, "output_length": 6, "hash_ids": [1, 2, 3]},
            {"timestamp": 2500, "input_length": 600, "output_length": 7, "hash_ids": [8, 9]},
        ]
        path = tmp_path / "mooncake.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return path

    def test_arrivals_lengths_and_shared_prefixes_are_kept(self, mooncake: Path) -> None:
        drawn = draw("timed_trace", 0, path=mooncake)
        assert drawn.arrivals_s is not None
        assert drawn.arrivals_s.tolist() == [0.0, 0.5, 2.5]
        first, second, third = [list(sample.prompt) for sample in drawn.samples]
        assert [len(ids) for ids in (first, second, third)] == [1000, 1100, 600]
        assert first == second[:1000]
        assert third[:100] != first[:100]
        assert [sample.output_tokens for sample in drawn.samples] == [5, 6, 7]
        assert "37.9%" in drawn.notes[0]  # two blocks of 512 in 2700

    def test_as_text_where_no_vocabulary_is_known(self, mooncake: Path) -> None:
        drawn = draw("timed_trace", 2, path=mooncake, counter=Estimate(), backend="openai-chat")
        first, second = [str(sample.prompt) for sample in drawn.samples]
        assert (len(first), second[:4000]) == (4000, first)

    def test_the_same_text_in_every_process(self, mooncake: Path) -> None:
        prompt = str(draw("timed_trace", 1, path=mooncake, counter=Estimate()).samples[0].prompt)
        assert prompt == str(draw("timed_trace", 3, path=mooncake, counter=Estimate()).samples[0].prompt)

    def test_changes_to_the_trace(self, mooncake: Path) -> None:
        drawn = draw("timed_trace", 0, path=mooncake, window="0:2", speed=2.0, max_input=1050)
        assert drawn.arrivals_s is not None
        assert drawn.arrivals_s.tolist() == [0.0]

    @needs_traces
    def test_published_traces(self) -> None:
        azure = draw("timed_trace", 50, path=SHARED / "AzureLLMInferenceTrace_code.csv", counter=Estimate())
        assert len(azure.samples) == 50
        assert azure.arrivals_s is not None
        assert azure.arrivals_s[0] == 0.0
        workload = read_trace(str(SHARED / "mooncake_conversation_trace.jsonl"))
        assert shared_fraction(workload) == pytest.approx(0.366, abs=0.01)


class TestMedia:
    def test_images_are_noise_of_the_wanted_sizes(self) -> None:
        settings = {"random_input_len": 5, "random_mm_base_items_per_request": 2,
                    "random_mm_bucket_config": "{(16, 32, 1): 0.5, (8, 8, 1): 0.5}"}  # fmt: skip
        samples = draw("random-mm", 6, backend="openai-chat", **settings).samples
        assert {len(sample.media) for sample in samples} == {2}
        sizes = {Image.open(io.BytesIO(one.content)).size for sample in samples for one in sample.media}
        assert sizes == {(32, 16), (8, 8)}
        pixels = np.asarray(Image.open(io.BytesIO(samples[0].media[0].content)))
        assert len(np.unique(pixels)) > 50

    def test_how_many_images_varies_within_limits(self) -> None:
        settings = {"random_input_len": 5, "random_mm_base_items_per_request": 4, "random_mm_limit_mm_per_prompt": 5,
                    "random_mm_num_mm_items_range_ratio": 0.5, "random_mm_bucket_config": "{(4, 4, 1): 1}"}  # fmt: skip
        samples = draw("random-mm", 60, backend="openai-chat", **settings).samples
        assert {len(sample.media) for sample in samples} == {2, 3, 4, 5}

    @pytest.mark.parametrize(("limit", "most"), [("1", 1), ('{"image": 2, "video": 0}', 2), ('{"video": 1}', 4)])
    def test_a_limit_may_be_said_for_each_kind_of_media(self, limit: str, most: int) -> None:
        settings = {"random_mm_base_items_per_request": 4, "random_mm_bucket_config": "{(4, 4, 1): 1}"}
        samples = draw("random-mm", 5, backend="openai-chat", random_mm_limit_mm_per_prompt=limit, **settings).samples
        assert {len(sample.media) for sample in samples} == {most}

    @pytest.mark.parametrize("limit", ["-1", "many", '{"image": -2}', "1.5"])
    def test_what_is_no_limit_is_refused(self, limit: str) -> None:
        with pytest.raises(ConfigError, match="--random-mm-limit-mm-per-prompt"):
            draw("random-mm", 1, backend="openai-chat", random_mm_limit_mm_per_prompt=limit)

    @pytest.mark.parametrize("config", ["{}", "x", "{(4, 4): 1}", "{(0, 4, 1): 1}", "{(4, 4, 8): 1}"])
    def test_what_is_no_size_is_refused(self, config: str) -> None:
        with pytest.raises(ConfigError, match="--random-mm-bucket-config"):
            draw("random-mm", 1, backend="openai-chat", random_mm_bucket_config=config)

    def test_sounds_last_as_long_as_asked(self) -> None:
        settings = {"random_audio_seconds": 0.5, "random_audio_range_ratio": 0.2, "random_output_len": 9}
        samples = draw("random-audio", 4, backend="openai-audio", **settings).samples
        for sample in samples:
            with wave.open(io.BytesIO(sample.media[0].content)) as sound:
                assert sound.getnframes() / sound.getframerate() == pytest.approx(sample.media[0].duration_s, abs=1e-4)
            assert 0.4 <= sample.media[0].duration_s <= 0.6
            assert (sample.prompt, sample.output_tokens) == ("", 9)

    def test_a_backend_that_cannot_see_is_not_shown_pictures(self) -> None:
        with pytest.raises(ConfigError, match="has image and --backend openai takes text"):
            draw("random-mm", 1)


def test_rerank_has_one_query_and_documents_in_batches() -> None:
    drawn = draw("random-rerank", 10, backend="rerank", random_input_len=42, random_batch_size=4)
    assert [len(sample.documents) for sample in drawn.samples] == [4, 4, 2]
    assert len({sample.prompt for sample in drawn.samples}) == 1
    assert drawn.samples[0].input_tokens == 4 * (20 + 20)
    with pytest.raises(ConfigError, match="has text and --backend rerank takes documents"):
        draw("random", backend="rerank")


class TestHuggingFace:
    """Against a stand-in for the library ``datasets``, which is optional."""

    @pytest.fixture
    def library(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        class Rows(list[dict[str, Any]]):
            def shuffle(self, seed: int, buffer_size: int = 0) -> Rows:
                return self

        library = SimpleNamespace(rows=Rows(), asked=None)

        def load_dataset(path: str, **options: Any) -> Rows:
            library.asked = (path, options)
            return library.rows

        library.load_dataset = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", library)
        return library

    def test_questions_and_answers_under_many_names(self, library: SimpleNamespace) -> None:
        long = "How many legs have three spiders and two dogs together?"
        library.rows += [
            {"question": long, "answer": "Thirty-two, if none of them is hurt."},
            {
                "instruction": "Translate this into French, please:",
                "input": "a red house",
                "output": "une maison rouge",
            },
            {"turns": ["Write a very short story about a tree.", "Now a longer one."]},
            {
                "messages": [
                    {"role": "user", "content": long},
                    {"role": "assistant", "content": "It is thirty-two legs."},
                ]
            },
        ]
        samples = draw("hf", 4, path="someone/something", hf_split="test").samples
        assert library.asked == ("someone/something", {"name": None, "split": "test", "streaming": True})
        assert [str(sample.prompt)[:9] for sample in samples] == ["How many ", "Translate", "Write a v", "How many "]
        assert "a red house" in str(samples[1].prompt)
        assert samples[2].output_tokens == 256
        assert samples[0].output_tokens == TINY.count("Thirty-two, if none of them is hurt.")

    def test_known_sets_have_their_usual_answer_length(self, library: SimpleNamespace) -> None:
        library.rows.append({"question": "2+2?", "answer": "4"})
        assert draw("hf", 1, path="openai/gsm8k").samples[0].output_tokens == 256

    def test_columns_that_mean_nothing_are_named(self, library: SimpleNamespace) -> None:
        library.rows.append({"pixels": [1]})
        with pytest.raises(WorkloadError, match="has the columns pixels"):
            draw("hf", 1, path="a/b")

    def test_without_the_library_it_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ConfigError, match=r"simserve\[hf\]"):
            draw("hf", 1, path="a/b")


def test_an_unknown_data_set_is_told_which_there_are() -> None:
    with pytest.raises(ConfigError, match="no data set 'rndom'; choose one of random"):
        draw("rndom")


def test_prefixes_of_the_published_kind_are_counted_only_from_the_start() -> None:
    assert math.isclose(shared_fraction(read_trace_of([[1, 2], [1, 2], [3, 2]])), 2 / 6)


def read_trace_of(blocks: list[list[int]]) -> Any:
    from simserve.workload import PrefixUnits, Workload

    offsets = np.cumsum([0, *map(len, blocks)])
    ids = np.array([one for row in blocks for one in row])
    tokens = np.array([512 * len(row) for row in blocks])
    return Workload("w", np.arange(float(len(blocks))), tokens, tokens, PrefixUnits(512, ids, offsets))
