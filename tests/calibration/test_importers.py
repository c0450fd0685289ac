"""Importers read what their project publishes, and refuse anything else with the line and the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simserve.calibration.importers import aiconfigurator, ascend, llmservingsim, vidur
from simserve.errors import HardwareError

GEMMS = (
    "device,kernel_source,gemm_dtype,m,n,k,latency_ms\n"
    "A100,x,bfloat16,8,4096,1024,0.5\n"
    "A100,x,bfloat16,16,4096,1024,0.6\n"
)
ATTENTION = (
    "device,batch_size,isl,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,step,latency_ms\n"
    "A100,4,1,32,8,128,bfloat16,bfloat16,1023,0.02\n"
)
LAYERS = "layer,tokens,time_us\nqkv_proj,8,50\nact_fn,8,3\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "table.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_matrix_products_of_aiconfigurator(tmp_path: Path) -> None:
    points = aiconfigurator.read_gemms(written(tmp_path, GEMMS))

    assert (points.m[1], points.n[1], points.k[1], points.seconds[1]) == (16, 4096, 1024, 0.6e-3)


def test_a_decodes_context_is_what_came_before_and_its_steps(tmp_path: Path) -> None:
    points = aiconfigurator.read_attention(written(tmp_path, ATTENTION))

    assert (points.tokens[0], points.sequences[0], points.heads[0], points.kv_heads[0]) == (1024, 4, 32, 8)


def test_layers_of_llmservingsim_become_shapes_and_bytes(tmp_path: Path) -> None:
    gemms, small = llmservingsim.read_layers_us(written(tmp_path, LAYERS))

    assert (gemms.m[0], gemms.n[0], gemms.k[0]) == (8, 6144, 4096)
    assert (small.name[0], small.moved_bytes[0]) == ("activation", 8 * 3 * 14336 * 2)


def test_attention_of_the_tpu_is_chunks_or_decodes(tmp_path: Path) -> None:
    header = "prefill_chunk_size,kv_cache_size,batch_size,is_prefill,mean_ns,p50_ns\n"
    points = llmservingsim.read_attention_ns(
        written(tmp_path, header + "64,128,1,True,900,800\n0,256,4,False,700,600\n")
    )
    rows = zip(points.chunk, points.cached, points.decodes, points.context, points.seconds, strict=True)
    assert list(rows) == [(64, 128, 0, 0, pytest.approx(800e-9)), (0, 0, 4, 256, pytest.approx(600e-9))]

    with pytest.raises(HardwareError, match="prefill chunks of several sequences at once"):
        llmservingsim.read_attention_ns(written(tmp_path, header + "64,128,2,True,900,800\n"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GEMMS.replace("0.6", "fast"), "line 3: latency_ms is 'fast', which is not a number"),
        (GEMMS.replace("0.6", "0"), "line 3: latency_ms is 0, which cannot have been measured"),
        (GEMMS.replace("0.6", "nan"), "line 3: latency_ms is nan, which cannot have been measured"),
        (GEMMS.replace("0.6", "0.6,7"), "line 3: has not as many values as there are columns"),
        (GEMMS.replace("bfloat16,16", "fp8,16"), "line 3: gemm_dtype is 'fp8', but only 'bfloat16' can be used here"),
        (GEMMS.replace("A100,x,bfloat16,16", "H100,x,bfloat16,16"), "line 3: device changes from 'A100' to 'H100'"),
        (GEMMS.splitlines()[0] + "\n", "line 2: there are no measurements"),
        (ATTENTION, "line 1: has no column m, n, k, gemm_dtype"),
    ],
)
def test_a_broken_table_is_refused_with_line_and_reason(tmp_path: Path, text: str, reason: str) -> None:
    file = written(tmp_path, text)

    with pytest.raises(HardwareError) as caught:
        aiconfigurator.read_gemms(file)

    assert str(caught.value).startswith(f"{file}, {reason}")


@pytest.mark.parametrize(
    "read",
    [
        aiconfigurator.read_attention,
        aiconfigurator.read_all_reduce,
        llmservingsim.read_layers_us,
        llmservingsim.read_mixed_attention,
        lambda file: llmservingsim.read_layers_ns(file, 1),
        lambda file: ascend.read_gemms(file, "bf16"),
        lambda file: ascend.read_attention(file, "attention_context"),
        vidur.read_host_steps,
        vidur.read_small_operators,
    ],
)
def test_a_foreign_table_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(HardwareError, match="line 1: has no column"):
        read(written(tmp_path, GEMMS))


def test_a_layer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"line 3: layer 'moe' is not one of Llama-3\.1-8B's"):
        llmservingsim.read_layers_us(written(tmp_path, LAYERS.replace("act_fn", "moe")))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"nothing\.csv: cannot be read \(No such file or directory\)"):
        aiconfigurator.read_gemms(tmp_path / "nothing.csv")
