"""``simserve simulate``: from a command line to tables, JSON and files."""

from __future__ import annotations

import argparse
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from simserve.cli import simulate as command
from simserve.cli.main import main
from simserve.cli.options import engine_options, model_and_hardware
from simserve.config import EngineOptions

TARGET = ["simulate", "--model", "Llama-3.1-8B-Instruct", "--hardware", "A100"]
SMALL = [
    *TARGET,
    "--synthetic",
    "--num-prompts",
    "20",
    "--request-rate",
    "10",
    "--input-len",
    "64",
    "--output-len",
    "8",
]
TRACES = Path(__file__).parents[2].parent / "shared" / "traces"


def result_of(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The object that ``argv --json`` prints."""
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([*TARGET[1:], *argv])


def test_adapters_are_drawn_loaded_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asking = [*SMALL, "--enable-lora", "--max-loras", "2", "--lora-adapters", "3", "--lora-share", "0.5"]
    result = result_of([*asking, "--out", str(tmp_path)], capsys)
    table = pd.read_csv(tmp_path / "requests.csv")
    assert 0 < result["lora_requests"] == (table.adapter > 0).sum() < 20
    assert result["lora_adapters"] == 3
    assert result_of(asking, capsys)["mean_ttft_ms"] == result["mean_ttft_ms"]
    sessions = ["--sessions", "6", "--lora-adapters", "3", "--enable-lora", "--request-rate", "5", "--input-len", "64"]
    result = result_of([*TARGET, "--synthetic", *sessions, "--output-len", "8"], capsys)
    assert result["lora_requests"] == result["completed"] == 24


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--lora-adapters", "3"], "ask for LoRA adapters: add --enable-lora"),
        (["--lora-zipf", "1"], "--lora-zipf is of adapters that are drawn"),
        (["--enable-lora", "--lora-adapters", "0"], "--lora-adapters 0 cannot be drawn from"),
    ],
)
def test_adapters_that_cannot_be(more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *more]) == 2
    assert sentence in capsys.readouterr().err


class TestWhatIsPrinted:
    def test_tables_with_latencies_hardware_and_definitions(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(SMALL) == 0
        shown = capsys.readouterr().out

        for words in ("TTFT", "TPOT", "ITL", "E2E", "mean", "p50", "p90", "p99"):
            assert words in shown
        for words in ("requests/s", "KV blocks", "preemptions", "utilisation", "20 finished"):
            assert words in shown
        assert "profile A100-SXM4-80GB, calibrated" in shown
        assert "TPOT = (last - first token) / (tokens - 1)" in shown

    def test_json_is_one_object_and_nothing_else(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of(SMALL, capsys)

        assert (result["completed"], result["failed"]) == (20, 0)
        assert (result["total_input_tokens"], result["total_output_tokens"]) == (20 * 64, 20 * 8)
        assert 0 < result["mean_ttft_ms"] < result["mean_e2el_ms"]
        assert result["p50_itl_ms"] <= result["p99_itl_ms"]
        assert (result["request_rate"], result["seed"], result["calibrated"]) == (10.0, 0, True)
        assert 0 < result["bandwidth_utilization"] < result["busy_fraction"] <= 1

    def test_every_figure_has_a_band_and_says_how_it_was_made(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of(SMALL, capsys)

        for key in ("mean_ttft_ms", "median_tpot_ms", "p90_itl_ms", "p99_e2el_ms", "duration", "output_throughput"):
            assert result[f"{key}_low"] <= result[key] <= result[f"{key}_high"], key
        assert result["mean_tpot_ms_low"] < result["mean_tpot_ms_high"]
        assert "every operator that much slower" in str(result["bands"])

    def test_bands_are_left_out_where_they_would_cost_much_or_nobody_wants_them(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        long = [*SMALL, "--num-prompts", "5001", "--request-rate", "inf"]
        reasons = {}
        for options in ((), ("--no-bands",), ("--bands",)):
            result = result_of([*long, *options], capsys)
            reasons[options] = result["bands"]
            assert ("mean_ttft_ms_low" in result) == (options == ("--bands",))

        assert reasons[()] == "not made for more than 5,000 requests; --bands makes them, in three times the time"
        assert "--no-bands" in reasons[("--no-bands",)]

    def test_a_front_end_is_named_with_its_load(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = ["--front-end", "vllm-v1", "--api-server-count", "2"]
        with_one, without = result_of([*SMALL, *options], capsys), result_of(SMALL, capsys)
        assert (with_one["front_end"], with_one["api_server_count"]) == ("vllm-v1", 2)
        assert 0.01 < with_one["front_end_utilization"] < 0.1
        assert 4.0 < with_one["mean_ttft_ms"] - without["mean_ttft_ms"] < 6.0
        assert without["front_end_utilization"] is None
        assert main([*SMALL, *options]) == 0
        assert "front end     vllm-v1, 2 processes, busy" in capsys.readouterr().out

    def test_a_front_end_that_would_be_full_is_told_of(self, capsys: pytest.CaptureFixture[str]) -> None:
        short = ["--request-rate", "200", "--input-len", "10", "--output-len", "5", "--num-prompts", "200"]
        assert main([*SMALL, *short]) == 0
        assert "vLLM's would have been busy 80% of the time: add --front-end vllm-v1" in capsys.readouterr().err
        assert main(SMALL) == 0
        assert capsys.readouterr().err == ""

    def test_an_infinite_rate_is_written_as_vllm_writes_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of([*SMALL, "--request-rate", "inf"], capsys)
        assert result["request_rate"] == "inf"
        assert result["max_concurrent_requests"] == 20

    def test_percentiles_are_those_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of([*SMALL, "--metric_percentiles=25,99.9"], capsys)
        assert "p25_ttft_ms" in result
        assert "p99.9_e2el_ms" in result
        assert "p50_ttft_ms" not in result

    def test_the_same_seed_gives_the_same_bytes(self, capsys: pytest.CaptureFixture[str]) -> None:
        outputs = []
        for seed in ("1", "1", "2"):
            assert main([*SMALL, "--seed", seed, "--json"]) == 0
            outputs.append(capsys.readouterr().out)
        assert outputs[0] == outputs[1] != outputs[2]

    def test_files_hold_every_request_and_the_summary(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = tmp_path / "new" / "run"
        assert main([*SMALL, "--json", "--out", str(folder)]) == 0
        captured = capsys.readouterr()

        assert len(pd.read_parquet(folder / "requests.parquet")) == len(pd.read_csv(folder / "requests.csv")) == 20
        assert (folder / "summary.json").read_text() == captured.out
        assert str(folder / "requests.csv") in captured.err


class TestTraces:
    def test_shared_prefixes_of_a_mooncake_trace_are_found(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trace = tmp_path / "trace.jsonl"
        rows = [
            {"timestamp": 10_000 * i, "input_length": 1100, "output_length": 4, "hash_ids": [1, 2, 10 + i]}
            for i in range(4)
        ]
        trace.write_text("".join(json.dumps(row) + "\n" for row in rows))

        result = result_of([*TARGET, "--trace", str(trace)], capsys)
        without = result_of([*TARGET, "--trace", str(trace), "--no-enable-prefix-caching"], capsys)

        assert result["workload"] == "trace.jsonl"
        assert result["prefix_cache_hit_rate"] == pytest.approx(3 * 1024 / (4 * 1100))
        assert without["prefix_cache_hit_rate"] == 0.0

    def test_requests_that_had_failed_are_told_of(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        trace = tmp_path / "burst.csv"
        trace.write_text(
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "5,GPT-4,100,10,110,API log\n6,GPT-4,100,0,100,API log\n"
        )
        assert main([*TARGET, "--trace", str(trace), "--json"]) == 0
        captured = capsys.readouterr()

        assert json.loads(captured.out)["dropped_requests"] == 1
        assert "left out as failed when burst.csv was taken: 1 requests" in captured.err

    @pytest.mark.skipif(not TRACES.is_dir(), reason="the recorded traces are not beside this checkout")
    def test_a_part_of_the_real_mooncake_trace(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = (TRACES / "mooncake_conversation_trace.jsonl").read_text().splitlines()[:50]
        trace = tmp_path / "mooncake.jsonl"
        trace.write_text("\n".join(rows))

        result = result_of([*TARGET, "-tp", "4", "--trace", str(trace)], capsys)

        assert result["completed"] == 50
        assert 0 < result["prefix_cache_hit_rate"] < 0.4


class TestWorkloads:
    @pytest.mark.parametrize(
        ("flags", "name"),
        [
            ("--burstiness 0.5", "synthetic-20x64+8@10~0.5"),
            ("--burstiness inf", "synthetic-20x64+8@10~inf"),
            ("--burst-rate 50 --burst-on-s 1 --burst-off-s 4", "synthetic-20x64+8@10^50-1s/4s"),
            ("--input-len uniform:10:90 --output-len zipf:1.1:30", "synthetic-20xuniform:10:90+zipf:1.1:30@10"),
            ("--input-len lognormal:64:1", "synthetic-20xlognormal:64:1+8@10"),
            ("--max-concurrency 2 --think-time 0.1:1", "synthetic-20x64+8@10"),
        ],
    )
    def test_each_is_drawn_named_and_served(self, flags: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of([*SMALL, *flags.split()], capsys)
        assert (result["workload"], result["completed"]) == (name, 20)

    def test_a_ramp_takes_the_place_of_the_rate(self, capsys: pytest.CaptureFixture[str]) -> None:
        ramp = "--ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 9"
        result = result_of([*TARGET, "--synthetic", "--num-prompts", "20", *ramp.split()], capsys)
        assert result["workload"] == "synthetic-20x1024+128@1..9-linear"
        assert (result["ramp_up_strategy"], result["ramp_up_end_rps"]) == ("linear", 9.0)
        assert "request_rate" not in result

    def test_users_who_wait_are_never_more_than_their_number(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of([*SMALL, "--request-rate", "inf", "--max-concurrency", "3"], capsys)
        assert (result["max_concurrency"], result["max_concurrent_requests"]) == (3, 3)

    def test_sessions_find_their_past_in_the_prefix_cache(self, capsys: pytest.CaptureFixture[str]) -> None:
        flags = "--sessions 5 --turns 3 --input-len 64 --output-len 8 --think-time 1 --system-prompt-len 128"
        argv = [*TARGET, "--synthetic", *flags.split(), "--request-rate", "1", "--block-size", "32"]
        result = result_of(argv, capsys)
        assert (result["workload"], result["completed"]) == ("sessions-5x3x64+8@1", 15)
        assert (result["sessions"], result["turns"], result["think_time"]) == (5, "3", "1")
        assert result["prefix_cache_hit_rate"] > 0.6
        assert result_of([*argv, "--no-enable-prefix-caching"], capsys)["prefix_cache_hit_rate"] == 0.0

    def test_think_times_have_a_stream_of_their_own(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        for think_time in ("0", "1:1"):
            folder = str(tmp_path / think_time)
            flags = ["--max-concurrency", "2", "--think-time", think_time, "--input-len", "uniform:1:99"]
            result_of([*SMALL, *flags, "--out", folder], capsys)
        still, thinking = (pd.read_csv(tmp_path / name / "requests.csv") for name in ("0", "1:1"))
        assert still["input_tokens"].tolist() == thinking["input_tokens"].tolist()
        assert still["arrival_s"].tolist() != thinking["arrival_s"].tolist()


class TestChangesToATrace:
    @pytest.fixture(name="trace")
    def write_a_trace(self, tmp_path: Path) -> str:
        rows = (f"{second},{10 * second + 1},5" for second in range(100))
        (tmp_path / "trace.csv").write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
        return str(tmp_path / "trace.csv")

    def test_window_and_longest_prompt_choose_requests(self, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
        argv = [*TARGET, "--trace", trace, "--window", "20:40", "--max-input", "401", "--json"]
        assert main(argv) == 0
        captured = capsys.readouterr()
        result = json.loads(captured.out)

        assert (result["completed"], result["too_long_requests"], result["window"]) == (21, 19, "20:40")
        assert "left out with prompts of more than 401 tokens: 19 requests" in captured.err

    def test_speed_and_rate_scale(self, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
        once = result_of([*TARGET, "--trace", trace], capsys)
        twice = result_of([*TARGET, "--trace", trace, "--speed", "2", "--rate-scale", "2", "--seed", "5"], capsys)
        assert twice["completed"] == 2 * once["completed"]
        assert twice["duration"] == pytest.approx(once["duration"] / 2, rel=0.02)
        assert (twice["speed"], twice["rate_scale"], twice["seed"]) == (2.0, 2.0, 5)

    def test_a_trace_can_be_served_to_users_who_wait(self, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of([*TARGET, "--trace", trace, "--speed", "1000", "--max-concurrency", "4"], capsys)
        assert (result["completed"], result["max_concurrent_requests"]) == (100, 4)

    def test_a_client_pool_is_a_trace_with_a_rate(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "chunk-0-trace.csv").write_text("0,1,1,Gamma,1,1\n")
        (tmp_path / "chunk-0-dataset.json").write_text(
            json.dumps({"0": {"input_tokens": "{50: 1.0}", "output_tokens": "{5: 1.0}"}})
        )
        result = result_of([*TARGET, "--trace", str(tmp_path), "--request-rate", "0.5", "--speed", "10"], capsys)
        assert (result["completed"], result["total_input_tokens"]) == (300, 15_000)
        assert result["request_rate"] == 0.5


class TestOptions:
    def test_engine_options_go_by_vllms_names(self) -> None:
        args = parsed(
            *("--max-num-seqs", "8", "--max-num-batched-tokens", "8k", "--max-model-len", "4K", "--block-size", "32"),
            *("--gpu-memory-utilization", "0.5", "--num-gpu-blocks", "100", "--tensor-parallel-size", "2"),
            *("--long-prefill-token-threshold", "64", "--dtype", "half", "--policy", "vllm-v1"),
            *("--no-enable-prefix-caching", "--no-enable-chunked-prefill", "--no-async-scheduling"),
        )
        assert engine_options(args) == EngineOptions(
            policy="vllm-v1",
            dtype="float16",
            tensor_parallel_size=2,
            max_num_seqs=8,
            max_num_batched_tokens=8000,
            max_model_len=4096,
            gpu_memory_utilization=0.5,
            num_gpu_blocks=100,
            block_size=32,
            enable_prefix_caching=False,
            enable_chunked_prefill=False,
            long_prefill_token_threshold=64,
            async_scheduling=False,
        )

    def test_what_is_not_given_is_left_to_the_engine(self) -> None:
        assert engine_options(parsed()) == EngineOptions()

    def test_npu_num_is_the_number_of_devices(self) -> None:
        args = parsed("--npu-num", "4")
        assert engine_options(args).tensor_parallel_size == 4

    def test_npu_mem_takes_the_place_of_the_profiles_memory(self) -> None:
        hardware = model_and_hardware(parsed("--npu-mem", "40"))[1]
        assert hardware.memory_bytes == 40 * 2**30

    def test_options_reach_the_simulation(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = result_of(
            [*SMALL, "--max_num_seqs", "4", "--num-gpu-blocks=50", "--block-size", "32", "-tp", "2"], capsys
        )
        assert (result["max_num_seqs"], result["kv_blocks"], result["block_size"]) == (4, 50, 32)
        assert (result["hardware"], result["tensor_parallel_size"]) == ("2 x A100-SXM4-80GB", 2)
        assert result["mean_running_requests"] <= 4


def test_a_window_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n")
    assert main([*TARGET, "--trace", str(tmp_path / "trace.csv"), "--window", "5"]) == 2
    assert "simserve: --window is START:LENGTH in seconds, such as 600:60, not '5'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["simulate"], "which model? Name one with --model"),
        (["simulate", "--model", "opt-125m"], "which hardware? Name a profile with --hardware"),
        (TARGET, "which requests? Give either --trace FILE or --synthetic"),
        ([*TARGET, "--synthetic", "--trace", "x"], "which requests? Give either"),
        ([*TARGET, "--trace", "x", "--input-len", "8"], "--input-len shapes a --synthetic workload"),
        ([*TARGET, "--trace", "x", "--request-rate", "8"], "--request-rate shapes a --synthetic workload"),
        ([*TARGET, "--trace", "x", "--sessions", "8"], "--sessions shapes a --synthetic workload"),
        ([*TARGET, "--trace", "x.tar.gz"], "cannot read the client pool x.tar.gz"),
        ([*SMALL, "--speed", "2"], "--speed changes a --trace and synthetic requests"),
        ([*SMALL, "--input-len", "many"], "--input-len is 'many', which is not understood"),
        ([*SMALL, "--burstiness", "0"], "the burstiness is 0"),
        ([*SMALL, "--ramp-up-end-rps", "5"], "--request-rate cannot go with a ramp"),
        ([*TARGET, "--synthetic", "--ramp-up-end-rps", "5"], "--ramp-up-end-rps says not enough; give"),
        ([*SMALL, "--burst-rate", "5"], "--burst-rate says not enough; give --burst-on-s and --burst-off-s too"),
        ([*SMALL, "--think-time", "5"], "--think-time is for users who wait for answers"),
        ([*SMALL, "--max-concurrency", "2", "--think-time", "x"], "the think time 'x' is not understood"),
        ([*SMALL, "--max-concurrency", "0"], "0 users send no requests"),
        ([*SMALL, "--stagger", "5"], "--stagger spreads the first requests of users; say how many"),
        ([*SMALL, "--turns", "2"], "--turns is for --sessions"),
        ([*SMALL, "--sessions", "2"], "--num-prompts counts single requests; with --sessions give --turns"),
        ([*TARGET, "--synthetic", "--sessions", "2", "--turns", "x"], "--turns is 'x', which is not understood"),
        ([*TARGET, "--trace", "no-such-file.csv"], "cannot read the trace no-such-file.csv"),
        ([*SMALL, "--model", "no-such-model"], "model 'no-such-model' is not known"),
        ([*SMALL, "--hardware", "no-such-card"], "hardware 'no-such-card' is not known"),
        ([*SMALL, "--policy", "no-such-policy"], "unknown policy 'no-such-policy'"),
        ([*SMALL, "--num-prompts", "many"], "--num-prompts: 'many' is not a whole number"),
        ([*SMALL, "--request-rate", "fast"], "--request-rate: 'fast' is not a number"),
        ([*SMALL, "--request-rate", "nan"], "the request rate is nan"),
        ([*SMALL, "--max-model-len", "infK"], "--max-model-len: 'inf' is not a whole number"),
        ([*SMALL, "--metric-percentiles", "101"], "--metric-percentiles: 101 is not a percentile"),
        ([*SMALL, "--metric-percentiles", "nan"], "--metric-percentiles: nan is not a percentile"),
        ([*SMALL, "--npu-num", "2", "-tp", "4"], "--npu-num 2 and --tensor-parallel-size 4 mean the same"),
        ([*SMALL, "--npu-num", "0"], "--tensor-parallel-size must be at least 1"),
        ([*SMALL, "--npu-mem", "0"], "--npu-mem is memory in GB and must be more than 0"),
        ([*SMALL, "--model", "Llama-3.1-70B-Instruct"], "meta-llama/Llama-3.1-70B-Instruct does not fit on 1 x"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"simserve: {sentence}")
    assert captured.err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_found_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simserve.simulation.simulate", lambda *_: pytest.fail("it ran"))
    (tmp_path / "file").touch()
    assert main([*SMALL, "--out", str(tmp_path / "file")]) == 2
    assert "cannot write to" in capsys.readouterr().err


class TestProgress:
    def test_where_stderr_is_no_terminal_a_line_comes_every_five_seconds(self) -> None:
        stream, wall_s = io.StringIO(), 0.0
        on_progress = command.progress_lines(stream, clock=lambda: wall_s)
        for wall_s in (1.0, 4.9, 5.0, 6.0, 9.9, 10.0, 11.0):
            on_progress(int(wall_s * 100), 2000, wall_s * 60)

        assert stream.getvalue().splitlines() == [
            "500 of 2,000 requests done, 300.0 simulated seconds",
            "1,000 of 2,000 requests done, 600.0 simulated seconds",
        ]

    def test_a_terminal_gets_a_bar(self) -> None:
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        with command.progress(terminal) as on_progress:
            on_progress(500, 2000, 12.3)
        assert "500/2000" in terminal.getvalue()
        assert "12.3 simulated seconds" in terminal.getvalue()


def test_ctrl_c_ends_a_run_with_one_sentence() -> None:
    endless = [*TARGET, "--synthetic", "--num-prompts", "1000000", "--request-rate", "1"]
    code = (
        "from simserve.cli import simulate; simulate.PROGRESS_EVERY_S = 0.0\n"
        f"from simserve.cli.main import main; raise SystemExit(main({endless}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert "of 1,000,000 requests done" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)

    assert process.returncode == 130
    lines = [line for line in shown.splitlines() if "requests done" not in line]
    assert lines == ["simserve: interrupted before it was done"]


def test_synthetic_defaults_are_vllms(capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of([*TARGET, "--synthetic", "--num-prompts", "2"], capsys)
    assert result["workload"] == "synthetic-2x1024+128@inf"
    assert result["seed"] == 0


def test_prompts_that_are_all_too_long_end_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "--model", "facebook/opt-125m", "--hardware", "A100", "--synthetic", "--num-prompts", "3"]
    assert main([*arguments, "--input-len", "5000"]) == 2
    assert "all 3 prompts are too long" in capsys.readouterr().err


def test_a_context_beyond_the_models_own_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "--model", "facebook/opt-125m", "--hardware", "A100", "--synthetic"]
    assert main([*arguments, "--max-model-len", "4096"]) == 2
    assert "facebook/opt-125m was made for" in capsys.readouterr().err
