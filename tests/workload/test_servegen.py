"""ServeGen client pools: a handwritten one, what is wrong with one, and the real one."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simserve.errors import WorkloadError
from simserve.workload import is_client_pool, read_client_pool

MakePool = Callable[..., str]

TRACE = "0,0.5,1.0,Gamma,1.0,2.0\n600,0,0,,0,0\n1200,1.0,3.0,Weibull,0.5,1.0\n"
DATASET = {
    "0": {"input_tokens": "{10: 1.0}", "output_tokens": "{1: 0.25, 2: 0.75}", "reason_ratio": "{0.5: 1.0}"},
    "1200": {"input_tokens": "{20: 1.0}", "output_tokens": "{3: 1.0}"},
}


@pytest.fixture(name="make")
def make_a_pool_folder(tmp_path: Path) -> MakePool:
    def make(trace: str = TRACE, dataset: object = DATASET, number: int = 0, folder: str = "pool") -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"chunk-{number}-trace.csv").write_text(trace)
        (tmp_path / folder / f"chunk-{number}-dataset.json").write_text(json.dumps(dataset))
        return str(tmp_path / folder)

    return make


def test_each_span_has_its_requests_with_the_lengths_of_its_time(make: MakePool) -> None:
    workload = read_client_pool(make()).draw(seed=0)
    early = workload.arrival_s < 600
    assert (early.sum(), len(workload)) == (300, 900)
    assert workload.arrival_s[~early].min() >= 1200
    assert set(workload.input_tokens[early]) == {10}
    assert set(workload.input_tokens[~early]) == {20}
    assert np.mean(workload.output_tokens[early] == 2) == pytest.approx(0.75, abs=0.08)
    assert workload.name == "pool"


@pytest.mark.parametrize(
    ("law", "shape", "variation"),
    [("Gamma", 1.0, 1.0), ("Gamma", 0.25, 2.0), ("Weibull", 1.0, 1.0), ("Weibull", 0.5, 5**0.5)],
)
def test_gaps_vary_as_the_law_says(make: MakePool, law: str, shape: float, variation: float) -> None:
    pool = make(trace=f"0,100,1,{law},{shape},1\n")
    gaps_s = np.diff(read_client_pool(pool).draw(seed=7).arrival_s)
    assert len(gaps_s) == 59_999
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(variation, rel=0.04)


def test_clients_come_together_in_order_of_time(make: MakePool) -> None:
    make(number=10)
    workload = read_client_pool(make(number=2)).draw(seed=0)
    assert len(workload) == 1800
    assert np.all(np.diff(workload.arrival_s) >= 0)


def test_a_window_becomes_time_0_on(make: MakePool) -> None:
    workload = read_client_pool(make()).draw(seed=0, start_s=1300, length_s=200)
    assert 0 <= workload.arrival_s[0] <= workload.arrival_s[-1] < 200
    assert len(workload) == pytest.approx(200, abs=80)


def test_rates_are_scaled_or_set(make: MakePool) -> None:
    pool = read_client_pool(make())
    assert len(pool.draw(seed=0, rate_scale=2.0)) == 1800
    assert len(pool.draw(seed=0, request_rate=10.0)) == pytest.approx(10 * 1800, abs=1)
    assert len(pool.draw(seed=0, start_s=300, length_s=300, request_rate=10.0)) == pytest.approx(3000, rel=0.1)


def test_a_fraction_of_a_request_is_one_now_and_then(make: MakePool) -> None:
    trace = "".join(f"{600 * span},{0.25 / 600},1,Gamma,1,1\n" for span in range(4000))
    assert len(read_client_pool(make(trace=trace)).draw(seed=0)) == pytest.approx(1000, rel=0.1)


def test_a_tar_file_is_the_same_as_its_folder(make: MakePool, tmp_path: Path) -> None:
    folder = make()
    with tarfile.open(tmp_path / "pool.tar.gz", "w:gz") as archive:
        archive.add(folder, "data/model")
    packed = str(tmp_path / "pool.tar.gz")

    first, again = (read_client_pool(source).draw(seed=1) for source in (folder, packed))
    assert np.array_equal(first.arrival_s, again.arrival_s)
    assert np.array_equal(first.output_tokens, again.output_tokens)
    assert is_client_pool(folder)
    assert is_client_pool(packed)
    assert not is_client_pool("trace.csv")


def test_the_seed_decides(make: MakePool) -> None:
    pool = read_client_pool(make())
    assert np.array_equal(pool.draw(seed=1).arrival_s, pool.draw(seed=1).arrival_s)
    assert not np.array_equal(pool.draw(seed=1).arrival_s, pool.draw(seed=2).arrival_s)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trace": "0,1,1,Gamma,1\n"}, "chunk-0-trace.csv line 1 is '0,1,1,Gamma,1'; it must be"),
        ({"trace": "0,0,0,,0,0\n0,1,1,Gamma,1,1\n"}, "chunk-0-trace.csv line 2"),
        ({"trace": "5,1,1,Gamma,1,1\n"}, "chunk-0-trace.csv line 1"),
        ({"trace": "0,1,1,Pareto,1,1\n"}, "chunk-0-trace.csv line 1"),
        ({"trace": "0,1,1,Gamma,0,1\n"}, "chunk-0-trace.csv line 1"),
        ({"trace": "0,nan,1,Gamma,1,1\n"}, "chunk-0-trace.csv line 1"),
        ({"dataset": []}, "chunk-0-dataset.json must be an object"),
        ({"dataset": {}}, "chunk-0-dataset.json must be an object"),
        ({"dataset": {"0": {"input_tokens": 5}}}, "chunk-0-dataset.json must be an object"),
        ({"dataset": {"0": {"image_tokens": "{}"}}}, "has image_tokens, which SimServe cannot simulate"),
        ({"dataset": {"0": {"input_tokens": "{}"}}}, "chunk-0-dataset.json at 0: input_tokens must not be empty"),
        ({"dataset": {"0": {"input_tokens": "open('x')"}}}, "at 0: input_tokens must be probabilities"),
        ({"dataset": {"0": {"input_tokens": "{0: 1.0}"}}}, "at 0: input_tokens must have lengths of at least 1"),
        ({"dataset": {"0": {"input_tokens": "{5: 0.0}"}}}, "at 0: input_tokens must have lengths"),
    ],
)
def test_a_bad_pool_is_one_sentence(make: MakePool, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        read_client_pool(make(**change)).draw(seed=0)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_pool_is_one_sentence(make: MakePool, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"cannot read the client pool nowhere\.tar\.gz: No such file"):
        read_client_pool("nowhere.tar.gz")
    (tmp_path / "text.tar.gz").write_text("not packed")
    with pytest.raises(WorkloadError, match="cannot read the client pool"):
        read_client_pool(str(tmp_path / "text.tar.gz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkloadError, match="is no ServeGen client pool"):
        read_client_pool(str(tmp_path / "empty"))
    with pytest.raises(WorkloadError, match="has no request from 700 s on for 100 s"):
        read_client_pool(make()).draw(seed=0, start_s=700, length_s=100)
    with pytest.raises(WorkloadError, match="clients cannot send at this rate"):
        read_client_pool(make()).draw(seed=0, request_rate=0.0)
    (tmp_path / "pool" / "chunk-0-dataset.json").unlink()
    with pytest.raises(WorkloadError, match=r"has only trace\.csv of client 0"):
        read_client_pool(str(tmp_path / "pool"))


def test_two_pools_in_one_archive_are_told_apart(make: MakePool, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "both.tar", "w") as archive:
        archive.add(make(), "data/a")
        archive.add(make(), "data/b")
    with pytest.raises(WorkloadError, match=r"holds several client pools \(data/a/, data/b/\)"):
        read_client_pool(str(tmp_path / "both.tar"))


REAL = Path(__file__).resolve().parents[3] / "shared/traces/servegen_deepseek-r1.tar.gz"


@pytest.mark.skipif(not REAL.is_file(), reason="the ServeGen pool is not beside this checkout (../shared)")
def test_a_hundred_thousand_requests_of_the_real_pool_take_a_second_or_two() -> None:
    started = time.process_time()
    pool = read_client_pool(str(REAL))
    workload = pool.draw(seed=0, start_s=3600, length_s=1000, request_rate=100)
    assert time.process_time() - started < 3.0
    assert (pool.length_s, len(pool.tables)) == (86_400, 73 * 4)
    assert len(workload) == pytest.approx(100_000, rel=0.02)
    assert workload.input_tokens.mean() > 500
    assert np.array_equal(
        workload.arrival_s, pool.draw(seed=0, start_s=3600, length_s=1000, request_rate=100).arrival_s
    )
