"""Every suite on this machine, quickly: what comes out is possible, and is what it says it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from simserve.calibration.microbench.attention import QUICK, measure_attention
from simserve.calibration.microbench.bandwidth import Bandwidth, measure_bandwidth
from simserve.calibration.microbench.bench import Bench, Pace
from simserve.calibration.microbench.contention import Guard
from simserve.calibration.microbench.machine import MIB, Machine, this_machine
from simserve.calibration.microbench.operands import Pool
from simserve.calibration.microbench.products import measure_peaks, measure_products, product_shapes
from simserve.calibration.microbench.small_operators import measure_small_operators
from simserve.calibration.microbench.stopwatch import CpuStopwatch
from simserve.errors import HardwareError
from simserve.models import load_model

torch = pytest.importorskip("torch", reason="the microbenchmark measures torch")

PACE = Pace(rounds=2, block_s=0.001, retries=0)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    threads = torch.get_num_threads()
    yield this_machine("cpu", "float32", threads=1)
    torch.set_num_threads(threads)


@pytest.fixture
def bench() -> Bench:
    return Bench(CpuStopwatch(threads=1), Guard(lambda: None))


@pytest.fixture(scope="module")
def pool(machine: Machine) -> Pool:
    return Pool(machine, 32 * MIB)


def ignore(done: float) -> None:
    """Nobody watches."""


def test_the_machine_says_what_it_is(machine: Machine) -> None:
    assert machine.kind == "cpu"
    assert machine.name
    assert (machine.threads, torch.get_num_threads()) == (1, 1)
    assert machine.memory_bytes > 2**28
    assert machine.versions["torch"] == torch.__version__


@pytest.mark.parametrize("threads", [0, 10_000])
def test_threads_that_a_machine_does_not_have_are_refused(threads: int) -> None:
    with pytest.raises(HardwareError, match=f"--threads {threads} is not possible here"):
        this_machine("cpu", "float32", threads)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(HardwareError, match="torch finds no CUDA device here"):
        this_machine("cuda", "bfloat16")


def test_pieces_of_the_pool_do_not_overlap(pool: Pool) -> None:
    pieces = pool.pieces(1024, 512)

    assert len(pieces) == 16
    assert len({piece.data_ptr() for piece in pieces}) == 16
    assert all(piece.shape == (1024, 512) and piece.is_contiguous() for piece in pieces)
    assert len(pool.pieces(1024, 512, most_bytes=8 * MIB)) == 4
    assert len(pool.pieces(1024, 512, most_bytes=0)) == 2
    assert pool.holds(1024, 4096)
    assert not pool.holds(1024, 8192)
    assert float(torch.cat([piece.flatten()[:100] for piece in pieces]).std()) == pytest.approx(1, abs=0.1)


def test_peaks_are_measured_in_the_formats_that_the_processor_computes(bench: Bench, machine: Machine) -> None:
    peaks = measure_peaks(bench, machine, PACE, True, ignore)

    assert set(peaks) == {"float32", "bfloat16"}
    assert all(1e9 < flops < 1e15 for flops in peaks.values())


def test_bandwidth_is_the_best_way_to_go_through_memory(bench: Bench, machine: Machine, pool: Pool) -> None:
    bandwidth = measure_bandwidth(bench, machine, pool, PACE, True, ignore)

    assert isinstance(bandwidth, Bandwidth)
    assert set(bandwidth.by_way) == {"read", "copy", "multiply"}
    assert bandwidth.bytes_per_s == max(bandwidth.by_way.values())
    assert 1e8 < bandwidth.bytes_per_s < 1e12
    assert bandwidth.cache_bytes > 0


def test_products_of_a_model_over_numbers_of_rows(bench: Bench, machine: Machine, pool: Pool) -> None:
    shapes = product_shapes([load_model("tiny-llama")], quick=True)
    points = measure_products(bench, machine, pool, MIB, [*shapes, (2**20, 64)], PACE, True, ignore)

    assert shapes == [(128, 64), (64, 64), (352, 64), (64, 176), (2048, 64)]
    assert len(points) == len(shapes) * 4, "a shape too large for the pool is left out"
    assert (points.seconds > 0).all()
    head = points.where((points.n == 2048) & (points.k == 64))
    assert head.m.tolist() == [1, 4, 16, 64]


def test_attention_of_the_engine_over_batches_contexts_and_chunks(bench: Bench, machine: Machine) -> None:
    measured = measure_attention(bench, machine, load_model("tiny-llama"), 4 * MIB, PACE, True, ignore)

    assert (measured.heads, measured.head_dim) == (4, 16)
    assert len(measured.decodes) == len(QUICK.batches) * len(QUICK.contexts)
    assert set(measured.decodes.kv_heads) == {2}
    assert len(measured.chunks) == len(QUICK.chunks) * len(QUICK.cached)
    assert not measured.chunks.decodes.any()
    assert (np.concatenate([measured.decodes.seconds, measured.chunks.seconds]) > 0).all()


def test_small_operators_are_counted_as_the_latency_model_counts_them(bench: Bench, machine: Machine) -> None:
    points = measure_small_operators(bench, machine, [load_model("tiny-llama")], PACE, True, ignore)

    assert set(points.name) == {"norm", "activation", "rope", "embedding", "sampler"}
    moved = {name: points.moved_bytes[points.name == name].min() for name in set(points.name)}
    assert moved["norm"] == 4 * 64 * 4
    assert moved["activation"] == 3 * 176 * 4
    assert moved["rope"] == 2 * (4 + 2) * 16 * 4
    assert moved["sampler"] == 2048 * 4
