"""Settings: one layer over the other, and one sentence with its place for whatever is wrong."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from simserve.errors import ConfigError
from simserve.server.settings import (
    Settings,
    command_line_layer,
    environment_layer,
    file_layer,
    load_settings,
)
from simserve.server.settings.quantities import read_bytes, read_seconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def read(file: Path, text: str) -> Settings:
    file.write_text(text)
    return load_settings([file_layer(file)])


class TestLayers:
    """Defaults < file < environment < command line."""

    def test_the_strongest_that_says_something_wins(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file.write_text("server: {host: file, port: 1, workers: 2, timeout: 3}")
        monkeypatch.setenv("SIMSERVE_SERVER__HOST", "environment")
        monkeypatch.setenv("SIMSERVE_SERVER__PORT", "2")
        line = command_line_layer([("--host", ("server", "host"), "line"), ("--timeout", ("server", "timeout"), None)])
        server = load_settings([file_layer(file), environment_layer(), line]).server
        assert (server.host, server.port, server.workers, server.timeout) == ("line", 2, 2, 3)
        assert server.keep_alive_timeout == 75

    def test_short_names_in_the_environment(self) -> None:
        values = environment_layer({"SIMSERVE_HOST": "", "LLMSERVINGSIM_HOST": "b", "SIMSERVE_MODEL": "m"}).values
        assert values == {"server": {"host": "b"}, "models": {"default": "m"}}
        assert environment_layer({"SIMSERVE_HOST": "a", "LLMSERVINGSIM_HOST": "b"}).values["server"]["host"] == "a"

    def test_the_command_line_wins_over_what_the_file_says_of_one_model(self, file: Path) -> None:
        file.write_text(
            "inference: {max_batch_size: 5}\n"
            "models: {available: {a: {tensor_parallel_size: 4, max_tokens: 100, max_num_seqs: 3, hardware: H100}}}"
        )
        line = [
            ("-tp", ("engine", "tensor_parallel_size"), 2),
            ("--max-model-len", ("engine", "max_model_len"), 200),
            ("--max-num-seqs", ("inference", "max_batch_size"), 9),
        ]
        model = load_settings([file_layer(file), command_line_layer(line)]).models.available["a"]
        assert model.model_fields_set == {"hardware"}

    def test_a_list_is_replaced_and_a_mapping_completed(self, file: Path) -> None:
        file.write_text("models: {preload: [a, b], available: {a: {path: p}}}")
        more = command_line_layer([("x", ("models", "preload"), ["c"]), ("y", ("models", "available", "b"), {})])
        models = load_settings([file_layer(file), more]).models
        assert models.preload == ["c"]
        assert models.available["a"].path == "p"
        assert "b" in models.available


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("modls: {}", "line 1: modls is not a key; did you mean models?"),
            ("server:\n  prot: 3", "line 2: server.prot is not a key; did you mean server.port?"),
            ("server:\n  port: high", "line 2: server.port: input should be a valid integer"),
            ("server: {port: 70000}", "line 1: server.port: input should be less than or equal to 65535, not 70000"),
            ("server: {port: 1, port: 2}", "line 1: server.port is there twice"),
            ("server: 5", "server: input should be"),
            ("server: [", "line 1: this is not YAML"),
            ("- server", "settings are keys with values"),
            ("auth: {enabled: true}", "line 1: auth.enabled is true, but there are neither keys nor a secret_key"),
            ("auth: {store: x.json}", "auth: the store is of signed tokens"),
            ("auth:\n  keys:\n  - {key: k, permissions: [root]}", "line 3: auth.keys.0.permissions.0: input should be"),
            ("logging: {rotation: 1 MB}", "logging.rotation is for a file, but there is no path"),
            ("logging: {path: x, retention: 3}", "logging.retention is for files put aside"),
            ("logging: {path: x, rotation: 3}", "logging.rotation: it must be a size or a duration with its unit"),
            ("logging: {path: x, rotation: 3 ells}", "logging.rotation: it must be a size or a duration"),
            ("models: {preload: [a, b], max_loaded: 1}", "models.preload has 2 models, and max_loaded is 1"),
            ("models:\n  available:\n  - {name: a, max_toknes: 9}", "line 3: models.available.a.max_toknes is not"),
            ("models:\n  available: [{path: a}]", "each model needs a name"),
            ("models: {available: {a: {block_size: 0}}}", "models.available.a.block_size must be at least 1, not 0"),
            ("engine:\n  policy: fast\n  block_size: 0", "line 3: engine.block_size must be at least 1"),
            ("engine: {time_scale: 0}", "engine.time_scale: input should be greater than 0"),
            ("inference: {max_input_tokens: 8, max_total_tokens: 8}", "inference.max_input_tokens must be less"),
            ("failures: {enabled: false, rate: 0.5}", "failures.enabled is false, but the rate is above 0"),
            ("failures: {statuses: [200]}", "failures.statuses.0: input should be greater"),
        ],
    )
    def test_a_sentence_names_the_file_the_line_and_the_key(self, file: Path, text: str, said: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read(file, text)
        assert str(caught.value).startswith(str(file))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("section", [*Settings.model_fields, "models.available.a", "auth.keys.0"])
    def test_an_unknown_key_of_any_section(self, file: Path, section: str) -> None:
        first, _, rest = section.partition(".")
        inside = {"": "{nonsense: 1}", "available.a": "{available: {a: {nonsense: 1}}}"}
        with pytest.raises(ConfigError) as caught:
            read(file, f"{first}:\n  {inside.get(rest, '{keys: [{key: k, nonsense: 1}]}')}")
        assert str(caught.value).startswith(f"{file}, line 2: {section}.nonsense is not a key; known are ")

    def test_a_key_is_never_repeated(self, file: Path) -> None:
        for text in ("auth: {secret_key: sk-too-short}", "auth: {keys: [[sk-too-short]]}", "auth: {keys: {a: sk-too}}"):
            with pytest.raises(ConfigError) as caught:
                read(file, text)
            assert "sk-too" not in str(caught.value)

    @pytest.mark.parametrize(("name", "value"), [("SIMSERVE_SERVER__PRT", "1"), ("SIMSERVE_SERVER__PORT", "high")])
    def test_a_wrong_variable_is_named(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=f"^{name}"):
            load_settings([environment_layer()])

    def test_a_wrong_short_variable_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"^LLMSERVINGSIM_PORT: "):
            load_settings([environment_layer({"LLMSERVINGSIM_PORT": "8e3"})])

    def test_a_wrong_flag_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"^--workers: input should be greater"):
            load_settings([command_line_layer([("--workers", ("server", "workers"), "0")])])

    def test_no_such_file(self, file: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            file_layer(file)


class TestQuantities:
    @pytest.mark.parametrize(
        ("text", "count"), [("10 MB", 10_000_000), ("1KiB", 1024), ("7", 7), ("1.5 gb", 1_500_000_000)]
    )
    def test_sizes(self, text: str, count: int) -> None:
        assert read_bytes(text) == count

    @pytest.mark.parametrize(
        ("text", "seconds"), [("7 days", 604_800), ("90s", 90), ("1.5 h", 5400), ("250 ms", 0.25), ("3", 3)]
    )
    def test_durations(self, text: str, seconds: float) -> None:
        assert read_seconds(text) == seconds

    @given(st.text(max_size=12))
    def test_any_other_text_is_an_error_of_the_file(self, text: str) -> None:
        with suppress(PydanticCustomError):
            assert isinstance(read_bytes(text), int)
