"""Reports: vLLM's keys and block, tables, rows, workbook and page, in either language."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.made import failed, outcome, run_of
from simserve.bench.load.counters import BINS, Progress, bin_of
from simserve.bench.load.schedule import Shape
from simserve.bench.report.classic import classic_report
from simserve.bench.report.compare import compare_results, label, read_result
from simserve.bench.report.folder import write_folder
from simserve.bench.report.live import STOPPING, Meter, progress_lines, sparkline
from simserve.bench.report.metrics import is_trusted
from simserve.bench.report.page import page
from simserve.bench.report.result_json import result_name, result_object, write_result
from simserve.bench.report.rows import rows_of
from simserve.bench.report.table import report
from simserve.bench.report.words import WORDS
from simserve.bench.report.workbook import write_workbook
from simserve.bench.run import BenchRun
from simserve.calibration.measured_run import read_measured_run
from simserve.errors import ConfigError, WorkloadError

METRICS = ("ttft", "tpot", "itl", "e2el")
PERCENTILES = (50.0, 99.0)


@pytest.fixture
def run() -> BenchRun:
    outcomes = [outcome(at, sent_s=at / 40, ttft_s=0.1 + at * 37 % 120 / 1000) for at in range(120)]
    return run_of([*outcomes, failed(120, 3.0)], Shape(request_rate=40.0), slos_s={"ttft": 0.2005})


def text_of(run: BenchRun, language: Any = "en") -> str:
    import io

    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(report(run, METRICS, PERCENTILES, language))
    return console.file.getvalue()  # type: ignore[attr-defined]


SCHEMA: dict[str, type | tuple[type, ...]] = {
    "date": str, "endpoint_type": str, "backend": str, "label": (str, type(None)), "model_id": str,
    "tokenizer_id": str, "num_prompts": int, "request_rate": (int, float, str), "burstiness": (int, float),
    "max_concurrency": (int, type(None)), "duration": float, "completed": int, "failed": int,
    "total_input_tokens": int, "total_output_tokens": int, "request_throughput": float,
    "request_goodput": (float, type(None)), "output_throughput": float, "total_token_throughput": float,
    "max_output_tokens_per_s": float, "max_concurrent_requests": int, "rtfx": float,
    **{f"{name}_{metric}_ms": float for metric in METRICS for name in ("mean", "median", "std", "p50", "p99")},
    "latencies": list, "queue_times": list,
}  # fmt: skip
"""Keys of a result of ``vllm bench serve`` and their types."""

DETAILS = (
    "input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors", "server_queue_times",
    "server_ttfts",
)  # fmt: skip


class TestResult:
    def test_a_reader_of_vllms_finds_every_key_and_type(self, run: BenchRun) -> None:
        result = json.loads(json.dumps(result_object(run, METRICS, PERCENTILES), allow_nan=False))
        for key, kind in SCHEMA.items():
            assert key in result, key
            assert isinstance(result[key], kind), key
        assert set(result) == {*SCHEMA, "simserve"}
        assert re.fullmatch(r"\d{8}-\d{6}", result["date"])
        assert (result["completed"], result["failed"], result["num_prompts"]) == (120, 1, 121)
        assert result["mean_ttft_ms"] == pytest.approx(159.5)
        assert len(result["latencies"]) == len(result["queue_times"]) == 121

    def test_details_have_an_entry_per_request(self, run: BenchRun) -> None:
        result = result_object(run, METRICS, PERCENTILES, detailed=True)
        assert {len(result[name]) for name in DETAILS} == {121}
        assert result["errors"][-1] == "HTTP 500 Internal Server Error: boom"
        assert result["itls"][0] == pytest.approx([0.02] * 4)
        assert (result["ttfts"][-1], result["output_lens"][-1], result["itls"][-1]) == (0.0, 0, [])

    def test_an_infinite_rate_and_a_ramp(self) -> None:
        assert result_object(run_of([outcome()]), METRICS, PERCENTILES)["request_rate"] == "inf"
        ramp = result_object(run_of([outcome()], Shape(ramp=("linear", 1, 4))), METRICS, PERCENTILES)
        assert (ramp["ramp_up_strategy"], ramp["ramp_up_start_rps"], ramp["ramp_up_end_rps"]) == ("linear", 1, 4)
        assert {"rps", "timestamp"} == set(ramp["rps_change_events"][0])

    def test_a_latency_that_nobody_has_is_0_as_there(self) -> None:
        result = result_object(run_of([failed()]), METRICS, PERCENTILES)
        assert (result["mean_ttft_ms"], result["p99_tpot_ms"]) == (0.0, 0.0)
        assert result["simserve"]["values"]["ttft"] == 0

    def test_embeddings_have_keys_of_their_own(self) -> None:
        one = outcome(0, tokens=0, output_tokens=0)
        result = result_object(run_of([one], backend="embeddings"), ("e2el",), PERCENTILES)
        assert {"total_input_sequences", "input_sequence_throughput", "mean_e2el_ms"} <= set(result)
        assert not {"total_output_tokens", "output_throughput", "mean_ttft_ms"} & set(result)

    def test_what_is_ours_stands_apart(self, run: BenchRun) -> None:
        own = result_object(run, METRICS, PERCENTILES, metadata={"gpu": "A100"})["simserve"]
        assert own["verdict"] == "VALID"
        assert own["latency_ms"]["ttft_scheduled"]["mean"] == pytest.approx(159.5)
        assert own["tokens_counted_by"] == {"usage": 120}
        assert own["failures"][0].startswith("1 of 121 requests: HTTP 500 Internal Server Error (boom); look into")
        assert own["steady_state"]["request_throughput"] > 0

    def test_metadata_stands_on_top(self, run: BenchRun) -> None:
        assert result_object(run, METRICS, PERCENTILES, metadata={"gpu": "A100"})["gpu"] == "A100"

    @pytest.mark.parametrize(
        ("shape", "label", "name"),
        [
            (Shape(), None, "openai-chat-infqps-a-model-20260102-030405.json"),
            (Shape(request_rate=2.5, max_concurrency=8), None,
             "openai-chat-2.5qps-concurrency8-a-model-20260102-030405.json"),
            (Shape(ramp=("linear", 1, 4)), "mine", "mine-ramp-up-linear-1qps-4qps-a-model-20260102-030405.json"),
        ],
    )  # fmt: skip
    def test_the_file_is_named_as_there(self, shape: Shape, label: str | None, name: str) -> None:
        assert result_name(run_of([outcome()], shape), label) == name

    def test_appended_results_are_read_back(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "r.json"
        write_result(path, {"duration": 1.0, "completed": 1})
        write_result(path, {"duration": 2.0, "completed": 2}, append=True)
        assert [json.loads(line)["completed"] for line in path.read_text().splitlines()] == [1, 2]
        assert read_result(path)["completed"] == 2
        with pytest.raises(ConfigError, match="cannot write"):
            write_result(path / "x.json", {})

    def test_a_prediction_can_be_held_against_it(self, run: BenchRun, tmp_path: Path) -> None:
        """As ``simserve validate serving`` does; failed requests are no workload."""
        write_result(tmp_path / "run.json", result_object(run, METRICS, PERCENTILES, detailed=True))
        measured = read_measured_run(tmp_path / "run.json")
        assert len(measured.workload) == 120
        assert measured.workload.output_tokens.tolist() == [5] * 120
        figures = {(figure.metric, figure.statistic): figure.value for figure in measured.figures}
        assert figures["TTFT", "mean"] == pytest.approx(0.1595)


CLASSIC = """\
============ Serving Benchmark Result ============
Successful requests:                     120       
Failed requests:                         1         
Request rate configured (RPS):           40.00     
Benchmark duration (s):                  3.27      
Total input tokens:                      1200      
Total generated tokens:                  600       
Request throughput (req/s):              36.65     
Request goodput (req/s):                 30.54     
Output token throughput (tok/s):         183.26    
Peak output token throughput (tok/s):    200.00    
Peak concurrent requests:                11.00     
Total token throughput (tok/s):          549.79    
---------------Time to First Token----------------
Mean TTFT (ms):                          159.50    
Median TTFT (ms):                        159.50    
P99 TTFT (ms):                           217.81    
"""  # noqa: W291


class TestClassic:
    def test_every_line_is_where_scripts_look(self, run: BenchRun) -> None:
        lines = classic_report(run, ("ttft",), (99.0,)).split("\n")
        for line, expected in zip(lines, CLASSIC.splitlines(), strict=False):
            label = expected[:40]
            assert line[:40] == label
            assert len(line) == 51 or set(line[:3]) <= set("=-")
        assert lines[-1] == "=" * 50
        assert len(lines) == len(CLASSIC.splitlines()) + 1

    def test_figures(self, run: BenchRun) -> None:
        text = classic_report(run, METRICS, (99.0,))
        found = dict(re.findall(r"^(.+?):\s+([\d.]+)\s*$", text, re.MULTILINE))
        assert found["Successful requests"] == "120"
        assert found["Mean TTFT (ms)"] == "159.50"
        assert found["P99 ITL (ms)"] == "20.00"
        assert found["Mean E2EL (ms)"] == "239.50"


class TestTable:
    def test_definitions_verdict_failures_and_slos(self, run: BenchRun) -> None:
        text = text_of(run)
        assert "TTFT = first output - sending" in text
        assert "VALID: 120 answers" in text
        assert "1 of 121 requests: HTTP 500" in text
        assert "✗ 84.2%" in text
        assert "TTFT scheduled" in text
        assert "± " in text
        assert "a note" in text

    def test_in_chinese(self, run: BenchRun) -> None:
        text = text_of(run, "zh")
        assert "首个输出时刻 - 发送时刻" in text
        assert "有效" in text
        assert "吞吐量" in text

    def test_a_percentile_of_too_few_values_is_left_out(self) -> None:
        text = text_of(run_of([outcome(at, at / 20) for at in range(40)], Shape(request_rate=20.0)))
        assert re.search(r"TTFT +40 .*\*", text)
        assert "* too few values" in text
        assert (is_trusted(99, 99.0), is_trusted(100, 99.0), is_trusted(999, 99.9), is_trusted(2, 50.0)) == (
            False, True, False, True,
        )  # fmt: skip

    def test_estimated_tokens_are_marked(self) -> None:
        run = run_of([outcome(counted_by="estimate")], counted={"estimate": 1})
        assert rows_of(run)[0]["tokens_counted_by"] == "estimate"
        assert "10 in, 5 out (estimated)" in text_of(run)
        assert any("estimated: output tokens of 1 answers" in note for note in run.notes)

    def test_every_text_has_both_languages_and_the_same_gaps(self) -> None:
        for key, (english, chinese) in WORDS.items():
            assert (
                re.findall(r"\{(\w+)", english)
                and set(re.findall(r"\{(\w+)", english)) == set(re.findall(r"\{(\w+)", chinese))
            ) or "{" not in english + chinese, key


class TestFolder:
    def test_everything_is_written(self, run: BenchRun, tmp_path: Path) -> None:
        result = result_object(run, METRICS, PERCENTILES, detailed=True)
        paths = write_folder(tmp_path / "out", run, result, METRICS, PERCENTILES)
        names = {path.name for path in paths}
        assert {"result.json", "requests.csv", "requests.jsonl", "report.html"} <= names
        assert all(path.stat().st_size for path in paths)
        with (tmp_path / "out/requests.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert (len(rows), rows[0]["ttft_ms"], rows[-1]["status"], rows[-1]["ttft_ms"]) == (121, "100.0", "failed", "")
        lines = (tmp_path / "out/requests.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["chunk_times_s"] == pytest.approx([0.1, 0.12, 0.14, 0.16, 0.18])

    def test_a_folder_that_cannot_be_written_is_one_sentence(self, run: BenchRun, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="give another --out"):
            write_folder(tmp_path / "file", run, {}, METRICS, PERCENTILES)

    def test_rows_show_the_clients_own_delay(self) -> None:
        late = run_of([outcome(0, sent_s=2.0, due_s=1.0, ready_s=1.9)], Shape(request_rate=1.0))
        (row,) = rows_of(late)
        assert (row["lag_ms"], row["client_queue_ms"]) == (pytest.approx(100), pytest.approx(1000))
        assert row["e2el_scheduled_ms"] == pytest.approx(1180)

    def test_a_workbook(self, tmp_path: Path) -> None:
        pytest.importorskip("xlsxwriter")
        import zipfile

        (path,) = write_workbook(tmp_path / "r.xlsx", {"Summary": [["a", "b"], [1, float("nan")]], "Raw data": [["x"]]})
        with zipfile.ZipFile(path) as book:
            assert b'name="Raw data"' in book.read("xl/workbook.xml")
            assert b"<v>1</v>" in book.read("xl/worksheets/sheet1.xml")

    def test_without_the_library_a_workbook_is_csv(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "xlsxwriter", None)
        paths = write_workbook(tmp_path / "r.xlsx", {"Summary": [["a"], [float("nan")]], "Raw data": [["x"], [2]]})
        assert [path.name for path in paths] == ["r.summary.csv", "r.raw_data.csv"]
        assert paths[1].read_text().split() == ["x", "2"]


class Tags(HTMLParser):
    """Which elements a page has, and every address it names."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "path", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "line"):
            assert self.open.pop() == tag


class TestPage:
    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_it_needs_nothing_from_elsewhere(self, run: BenchRun, language: Any) -> None:
        text = page(run, METRICS, PERCENTILES, language)
        tags = Tags()
        tags.feed(text)
        assert tags.addresses == []
        assert "script" not in tags.count
        assert tags.count["svg"] >= 9  # six distributions, TTFT and E2EL over time, in flight, tokens, timeline
        assert tags.open == []
        assert "nan" not in text.lower().replace("tenant", "")
        assert f'lang="{language}"' in text

    def test_texts_of_servers_are_not_taken_for_markup(self) -> None:
        from simserve.bench.measure.outcome import Failure

        text = page(run_of([outcome(), failed(1, failure=Failure("odd", "<script>x</script>"))]), METRICS, PERCENTILES)
        assert "<script>" not in text
        assert "&lt;script&gt;" in text

    @pytest.mark.parametrize("outcomes", [[], [failed()], [outcome(0, tokens=0, output_tokens=3)]])
    def test_a_run_of_little_or_nothing_is_a_page_too(self, outcomes: list[Any]) -> None:
        tags = Tags()
        tags.feed(page(run_of(outcomes), METRICS, PERCENTILES))
        assert tags.open == []


class TestCompare:
    def test_ratios_and_what_speaks_against_them(self, run: BenchRun) -> None:
        before = result_object(run, METRICS, PERCENTILES)
        after = before | {"mean_ttft_ms": before["mean_ttft_ms"] / 2, "request_rate": 80.0, "total_output_tokens": 900}
        comparison = compare_results(before, after)
        ratios = {change.name: change.ratio for change in comparison.changes}
        assert ratios["mean_ttft_ms"] == 0.5
        assert ratios["request_throughput"] == 1.0
        assert comparison.doubts == [
            "request_rate differs: 40.0 and 80.0", "total_output_tokens per request differ: 5.0 and 7.5",
        ]  # fmt: skip

    def test_a_result_of_vllm_has_fewer_keys(self, run: BenchRun) -> None:
        theirs = {"duration": 5.0, "completed": 100, "mean_ttft_ms": 100.0, "request_throughput": 20.0}
        names = {change.name for change in compare_results(result_object(run, METRICS, PERCENTILES), theirs).changes}
        assert names == {"duration", "completed", "mean_ttft_ms", "request_throughput"}

    def test_labels(self) -> None:
        assert label("p99_ttft_ms", "en") == "p99 TTFT, ms"
        assert label("mean_ttft_ms", "zh") == "均值 TTFT, 毫秒"
        assert label("total_input_tokens", "en") == "total input tokens"

    @pytest.mark.parametrize("content", ["", "x", "[]", "{}"])
    def test_what_is_no_result_is_one_sentence(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(WorkloadError, match=r"give a result of|is no result of"):
            read_result(tmp_path / "r.json")


class TestLive:
    @staticmethod
    def progress(done: int, events: int = 0) -> Progress:
        import numpy as np

        histogram = np.zeros(BINS)
        histogram[bin_of(0.1)] = done
        return Progress(done + 3, 3, done, 1, events, 0.001, 0.002, 0.5, histogram, histogram)

    def test_a_plain_line_every_ten_seconds(self) -> None:
        import io

        stream, now = io.StringIO(), [0.0]
        show = progress_lines(stream, 100, clock=lambda: now[0])
        for second in range(25):
            now[0] = float(second)
            show(self.progress(second), now[0])
        lines = stream.getvalue().splitlines()
        assert len(lines) == 2
        assert re.fullmatch(r"10 s: 10 of 100 requests done, 1 failed, 3 under way, TTFT p50 \d+\.\d ms", lines[0])

    def test_the_panel_shows_rates_and_health(self) -> None:
        import io

        meter = Meter(100, "model at url")
        meter.panel(self.progress(10, 100), 1.0)
        console = Console(width=120, file=io.StringIO())
        console.print(meter.panel(self.progress(20, 300), 2.0))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "10.0 requests/s, 200 chunks/s" in text
        assert "23 sent, 3 under way, 20 done, 1 failed" in text
        assert "about 8 s to go" in text
        assert "sent 1.0 ms late at worst" in text

    def test_ctrl_c_is_answered_at_once(self) -> None:
        import io

        stream = io.StringIO()
        show = progress_lines(stream, 100, clock=lambda: 0.0)
        for _ in range(3):
            show(replace(self.progress(5), is_stopping=True), 1.0)
        assert stream.getvalue() == f"{STOPPING}; 3 under way\n"
        console = Console(width=120, file=io.StringIO())
        console.print(Meter(100, "model at url").panel(replace(self.progress(5), is_stopping=True), 1.0))
        assert STOPPING in console.file.getvalue()  # type: ignore[attr-defined]

    def test_sparklines(self) -> None:
        assert sparkline([0.0, 5.0, 10.0]) == "▁▅█"
        assert sparkline([]) == sparkline([0.0]) == ""
