"""``simserve sweep`` and ``simserve report``, from the command line."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from simserve.cli.main import main
from simserve.cli.settings import parsed, setting_names
from simserve.errors import ConfigError

SMALL = ["--model", "meta-llama/Llama-3.1-8B-Instruct", "--synthetic", "--num-prompts", "30", "--input-len", "64",
         "--output-len", "16"]  # fmt: skip
LATENCIES = ["p99_ttft_ms", "p99_tpot_ms", "output_throughput"]


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv")


@pytest.mark.parametrize("option", ["--timeline", "--trace-out", "--trace-limit", "--bill", "--json"])
def test_what_is_about_one_run_is_no_setting(option: str) -> None:
    name = option.lstrip("-").replace("-", "_")
    assert name not in setting_names()
    with pytest.raises(ConfigError, match=f"{option} is no option of simserve simulate that changes a run"):
        parsed({name: "x"})


def test_features_of_replicas_are_settings(tmp_path: Path) -> None:
    drafts = '{"method": "ngram", "num_speculative_tokens": 2, "acceptance": [0.8, 0.6]}'
    sizes = ["--hardware", "A100", "--kv-offloading-size", "1:2:1", "--speculative-config", drafts]
    stages = ["--pipeline-parallel-size", "1,2", "--num-prompts", "20"]
    assert main(["sweep", *SMALL, *sizes, "--out", str(tmp_path / "features"), "--jobs", "1"]) == 0
    assert main(["sweep", *SMALL, "--hardware", "A100", *stages, "--out", str(tmp_path / "stages"), "--jobs", "1"]) == 0
    features, stages_rows = table(tmp_path / "features"), table(tmp_path / "stages")
    assert features.kv_offloading_size.tolist() == [1, 2]
    assert features.spec_mean_acceptance_length.between(1, 3).all()
    assert stages_rows.pipeline_parallel_size.tolist() == [1, 2]
    assert stages_rows.device_hours[1] > stages_rows.device_hours[0], "two devices for as long or longer"


def test_slots_of_adapters_are_an_axis(tmp_path: Path) -> None:
    asking = ["--lora-adapters", "4", "--lora-zipf", "1", "--enable-lora", "--hardware", "A100", "--request-rate", "20"]
    assert main(["sweep", *SMALL, *asking, "--max-loras", "1,4", "--out", str(tmp_path), "--jobs", "1"]) == 0
    rows = table(tmp_path)
    assert rows.max_loras.tolist() == [1, 4]
    assert rows.lora_loads[0] > rows.lora_loads[1] == 4
    assert rows.kv_blocks[0] > rows.kv_blocks[1]


def test_options_with_several_values_are_axes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", *SMALL, "--hardware", "A100,L4", "--request-rate", "1:3:1", "--out", str(tmp_path), "--jobs", "1"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("The cheapest is ")
    assert "report.html" in err
    rows = table(tmp_path)
    assert rows[["hardware", "request_rate"]].to_numpy().tolist() == [
        [name, rate] for name in ("A100", "L4") for rate in (1, 2, 3)
    ]


def test_the_command_of_a_row_gives_its_figures_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", *SMALL, "--hardware", "A100,L4", "--replicas", "none,2", "--out", str(tmp_path), "--jobs", "1"]
    assert main(argv) == 0
    for _, row in table(tmp_path).iterrows():
        capsys.readouterr()
        assert main([*str(row["command"]).split()[1:], "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert [again[key] for key in LATENCIES] == [row[key] for key in LATENCIES]


def test_a_spec_file_with_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "base: {model: meta-llama/Llama-3.1-8B-Instruct, synthetic: true, num-prompts: 100, input-len: 200,"
        " output-len: 20}\n"
        "axes: {hardware: [A100, L4]}\nslo: ttft:p99=500ms\ncapacity: {tolerance: 0.05}\n"
    )
    assert main(["sweep", str(spec), "--out", str(tmp_path / "out"), "--jobs", "1", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "within ttft:p99=500ms" in found["answer"][0]
    for row in found["rows"]:
        assert row["p99_ttft_ms"] <= 500
        assert row["missed_at"] <= row["max_request_rate"] * 1.05


def test_a_folder_with_a_sweep_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", *SMALL, "--hardware", "A100", "--max-num-seqs", "8,16", "--out", str(tmp_path), "--jobs", "1"]
    assert main(argv) == 0
    assert main(argv) == 2
    assert "add --resume to go on with it" in capsys.readouterr().err
    assert main([*argv, "--resume"]) == 0


def test_the_report_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", *SMALL, "--hardware", "A100", "--max-num-seqs", "8,16", "--out", str(tmp_path), "--jobs", "1"]
    assert main([*argv, "--title", "My sweep"]) == 0
    before = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    assert main(["report", str(tmp_path), "--png"]) == 0
    assert (tmp_path / "report.html").read_bytes() == before
    assert (tmp_path / "throughput-per-user-and-per-device.png").stat().st_size > 1000
    capsys.readouterr()
    assert main(["report", str(tmp_path), "--format", "md"]) == 0
    assert capsys.readouterr().out.startswith("## My sweep\n")


class Changing(BaseHTTPRequestHandler):
    """A server that goes on serving: its trace grows by a request each time it is asked for."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        rows = "".join(f"{second},100,10\n" for second in range(10 + self.asked))
        body = f"arrival_s,input_tokens,output_tokens\n{rows}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def test_all_runs_see_the_same_trace_of_a_server(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Changing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/trace"
    argv = ["sweep", *SMALL[:2], "--trace", url, "--hardware", "A100,L4", "--out", str(tmp_path), "--jobs", "1"]
    try:
        assert main(argv) == 0
        assert main([*argv, "--resume"]) == 0
    finally:
        server.shutdown()
        server.server_close()
    assert Changing.asked == 1
    assert table(tmp_path)["completed"].tolist() == [11, 11]
    assert len(list(tmp_path.glob("trace-*"))) == 1


def test_a_rate_without_end_is_a_value(tmp_path: Path) -> None:
    argv = ["sweep", *SMALL, "--hardware", "A100", "--request-rate", "5,inf", "--out", str(tmp_path), "--jobs", "1"]
    assert main(argv) == 0
    assert table(tmp_path)["request_rate"].tolist() == [5.0, float("inf")]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["sweep"], "what is to be swept?"),
        (["sweep", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["sweep", *SMALL, "--hardware", "A100", "--capacity"], "give slo too"),
        (["sweep", *SMALL, "--hardware", "A100", "--tolerance", "0.1"], "add --capacity"),
        (["sweep", *SMALL, "--hardware", "A100", "--jobs", "0"], "--jobs counts processes"),
        (["sweep", *SMALL, "--hardware", "A100", "--ray-address", "a:1"], "add --executor ray"),
        (["sweep", *SMALL, "--hardware", "A100", "--executor", "ray", "--jobs", "2"], "leave it out"),
        (["sweep", *SMALL, "--hardware", "A100", "--max-num-seqs", "many"], "'many' is not a whole number"),
        (["report", "nowhere"], "there is no sweep in nowhere"),
    ],
)
def test_bad_input_is_one_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


class TestAKilledSweep:
    """``kill -9`` at any moment: nothing is lost and nothing is there twice."""

    AXES = ("--hardware", "A100,L4,H200", "--request-rate", "1:10:1")

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "simserve", "sweep", *SMALL, *self.AXES, "--out", str(folder), "--resume"]
        return subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def test_it_goes_on_where_it_was(self, tmp_path: Path) -> None:
        kills = int(os.environ.get("SIMSERVE_TEST_KILLS", "1"))
        whole = tmp_path / "whole"
        assert self.start(whole).wait() == 0
        for number in range(kills):
            folder = tmp_path / str(number)
            sweep = self.start(folder)
            self._wait_for_rows(folder, random.Random(number).randrange(1, 25), sweep)
            os.killpg(sweep.pid, signal.SIGKILL)
            sweep.wait()
            kept = self._count(folder)
            assert kept > 0
            assert self.start(folder).wait() == 0
            assert self._count(folder) == 30
            pd.testing.assert_frame_equal(table(folder), table(whole))
            shutil.rmtree(folder)

    def _wait_for_rows(self, folder: Path, rows: int, sweep: subprocess.Popen[bytes]) -> None:
        ends_s = time.monotonic() + 60
        while self._count(folder) < rows and sweep.poll() is None and time.monotonic() < ends_s:
            time.sleep(0.005)

    @staticmethod
    def _count(folder: Path) -> int:
        try:
            with sqlite3.connect(f"file:{folder / 'runs.sqlite'}?mode=ro", uri=True, timeout=30) as file:
                found = int(file.execute("select count(*) from outcomes").fetchone()[0])
            file.close()
            return found
        except sqlite3.OperationalError:  # not there yet
            return 0
