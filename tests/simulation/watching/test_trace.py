"""A trace holds every step once, in its place, and a file that Perfetto opens."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.scheduling import Request, StepPlan
from simserve.scheduling.plan import PrefillChunk
from simserve.simulation import simulate
from simserve.simulation.cluster import Defaults, cluster_of, simulate_cluster
from simserve.simulation.replica import Run
from simserve.simulation.watching import ChromeTrace
from simserve.workload import synthetic_workload

MODEL, HARDWARE = load_model("facebook/opt-125m"), load_hardware("A100")
OPTIONS = EngineOptions(num_gpu_blocks=100, max_num_seqs=8, max_num_batched_tokens=256)

GOLDEN = """\
{"displayTimeUnit":"ms","traceEvents":[
{"ph":"M","name":"process_name","pid":1,"tid":0,"args":{"name":"fast/0"}},
{"ph":"M","name":"thread_name","pid":1,"tid":1,"args":{"name":"steps"}},
{"ph":"X","name":"mixed","pid":1,"tid":1,"ts":1000000.0,"dur":2000.0,"args":{"batch":3,"tokens":7,"prefill_tokens":5,\
"decodes":2,"decode_context_tokens":30}},
{"ph":"M","name":"process_name","pid":1000000,"tid":0,"args":{"name":"links"}},
{"ph":"M","name":"thread_name","pid":1000000,"tid":1,"args":{"name":"one to two"}},
{"ph":"X","name":"KV","pid":1000000,"tid":1,"ts":1002000.0,"dur":500.0,"args":{"request":7,"bytes":1000}},
{"ph":"b","cat":"request","id":"7","name":"request","pid":1,"tid":0,"ts":500000.0,"args":{"input_tokens":5,\
"output_tokens":2,"cached_tokens":0,"preemptions":0}},
{"ph":"e","cat":"request","id":"7","name":"request","pid":1,"tid":0,"ts":1004000.0},
{"ph":"b","cat":"request","id":"7","name":"queued","pid":1,"tid":0,"ts":500000.0,"args":{}},
{"ph":"e","cat":"request","id":"7","name":"queued","pid":1,"tid":0,"ts":1000000.0},
{"ph":"b","cat":"request","id":"7","name":"prefill","pid":1,"tid":0,"ts":1000000.0,"args":{}},
{"ph":"e","cat":"request","id":"7","name":"prefill","pid":1,"tid":0,"ts":1002000.0},
{"ph":"b","cat":"request","id":"7","name":"decode","pid":1,"tid":0,"ts":1002000.0,"args":{}},
{"ph":"e","cat":"request","id":"7","name":"decode","pid":1,"tid":0,"ts":1004000.0}
]}
"""


def test_the_format_to_the_byte(tmp_path: Path) -> None:
    request = Request(7, 5, 2, arrival_s=0.5)
    request.scheduled_s, request.first_token_s, request.finish_s = 1.0, 1.002, 1.004
    plan = StepPlan(0)
    plan.num_decodes, plan.decode_context_tokens = 2, 30
    plan.add_chunk(PrefillChunk(request, 5, 0, True))
    trace = ChromeTrace(tmp_path / "trace.json")
    trace.ran(0, "fast/0", None, Run(plan, 1.0, [0.002]))  # type: ignore[arg-type]
    trace.transferred("one to two", request, 1000, 1.002, 1.0025)
    trace.ended(0, request)
    trace.close()
    assert (tmp_path / "trace.json").read_text() == GOLDEN


def test_a_replica_that_is_started_loads_its_weights_and_starts_before_its_first_step(tmp_path: Path) -> None:
    scaler = {"group": "all", "max_replicas": 3, "target": 2, "interval_s": 1, "startup_s": 2}
    spec = cluster_of({"groups": [{"name": "all"}], "autoscalers": [scaler]}, "test")
    trace = ChromeTrace(tmp_path / "trace.json")
    simulate_cluster(
        synthetic_workload(3000, 400, 200, 50, seed=1), spec, Defaults(MODEL, HARDWARE, OPTIONS), watchers=[trace]
    )
    trace.close()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    weight_bytes = []
    for process in (2, 3):
        load, start, *steps = sorted(_slices(events, process), key=lambda each: each["ts"])
        assert [load["name"], start["name"]] == ["load weights", "start"]
        assert load["ts"] + load["dur"] == pytest.approx(start["ts"])
        assert start["dur"] == pytest.approx(2e6)
        assert load["dur"] == pytest.approx(load["args"]["bytes"] / 5e9 * 1e6)
        assert all(step["ts"] >= start["ts"] + start["dur"] for step in steps)
        weight_bytes.append(load["args"]["bytes"])
    assert weight_bytes[0] == weight_bytes[1] > 100e6


@settings(max_examples=15)
@given(st.integers(1, 40), st.floats(1, 200), st.integers(1, 400), st.integers(1, 60), st.integers(1, 3))
def test_slices_are_the_steps_and_do_not_overlap(
    tmp_path_factory: pytest.TempPathFactory, requests: int, rate: float, inputs: int, outputs: int, replicas: int
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    trace = ChromeTrace(path)
    spec = cluster_of({"groups": [{"name": "all", "replicas": replicas}]}, "test")
    workload = synthetic_workload(requests, rate, inputs, outputs, seed=1)
    done = simulate_cluster(workload, spec, Defaults(MODEL, HARDWARE, OPTIONS), watchers=[trace])
    trace.close()
    events = json.loads(path.read_text())["traceEvents"]
    for index, member in enumerate(done.members):
        slices = sorted(_slices(events, index + 1), key=lambda each: each["ts"])
        assert len(slices) == member.steps
        assert sum(each["dur"] for each in slices) == pytest.approx(member.busy_s * 1e6, abs=1e-3 * (len(slices) + 1))
        for before, after in itertools.pairwise(slices):
            assert round(1000 * (before["ts"] + before["dur"])) <= round(1000 * after["ts"])
    slices = _slices(events)
    assert sum(each["args"]["prefill_tokens"] for each in slices) == done.totals.computed_prefill_tokens
    ends = [each for each in events if each["ph"] == "e" and each["name"] == "request"]
    assert len(ends) == int((done.records.status == 0).sum())


def test_transfers_are_on_their_link_one_after_the_other(tmp_path: Path) -> None:
    groups = [{"name": "prompts", "role": "prefill"}, {"name": "answers", "role": "decode"}]
    link = {"from": "prompts", "to": "answers", "bandwidth_gb_per_s": 0.5}
    trace = ChromeTrace(tmp_path / "trace.json.gz")
    spec = cluster_of({"groups": groups, "links": [link]}, "test")
    simulate_cluster(
        synthetic_workload(30, 50.0, 200, 10, seed=1), spec, Defaults(MODEL, HARDWARE, OPTIONS), watchers=[trace]
    )
    trace.close()
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    sent = _slices(events, 1_000_000)
    assert len(sent) == 30
    for before, after in itertools.pairwise(sent):
        assert before["ts"] + before["dur"] <= after["ts"] + 1e-3
    per_byte_us = 1e6 / 0.5e9
    assert all(each["dur"] == pytest.approx(each["args"]["bytes"] * per_byte_us, rel=1e-3) for each in sent)


def test_a_watched_run_is_the_same_run(tmp_path: Path) -> None:
    workload = synthetic_workload(40, 50.0, 200, 30, seed=1)
    trace = ChromeTrace(tmp_path / "trace.json")
    watched = simulate(workload, MODEL, HARDWARE, OPTIONS, watchers=[trace])
    trace.close()
    plain = simulate(workload, MODEL, HARDWARE, OPTIONS)
    assert (watched.records.finish_s == plain.records.finish_s).all()
    assert watched.totals == plain.totals


def test_what_is_beyond_the_limit_is_counted(tmp_path: Path) -> None:
    trace = ChromeTrace(tmp_path / "trace.json", most_events=20)
    simulate(synthetic_workload(10, 50.0, 100, 10, seed=1), MODEL, HARDWARE, OPTIONS, watchers=[trace])
    trace.close()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert trace.events <= 20
    assert trace.left_out > 0
    assert len([each for each in events if each["ph"] != "M"]) == trace.events


def test_a_folder_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the trace"):
        ChromeTrace(tmp_path / "no" / "trace.json")


def _slices(events: list[dict[str, Any]], process: int | None = None) -> list[dict[str, Any]]:
    return [each for each in events if each["ph"] == "X" and (each["pid"] == process or (process is None
            and each["pid"] < 1_000_000))]  # fmt: skip
