"""Every kind of table that can be imported, damaged in every way: told with file, line and reason, and not written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simserve.calibration.tables import FORMATS, read_tables
from simserve.cli.main import main

TABLES = {
    ("aiconfigurator", "gemm"): (
        "device,gemm_dtype,m,n,k,latency_ms",
        ["A100,bfloat16,8,4096,1024,0.5", "A100,bfloat16,16,4096,1024,0.6"],
        "m n k latency_ms",
    ),
    ("aiconfigurator", "attention"): (
        "device,batch_size,isl,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,step,latency_ms",
        ["A100,4,1,32,8,128,bfloat16,bfloat16,1023,0.02", "A100,8,1,32,8,128,bfloat16,bfloat16,1023,0.03"],
        "batch_size isl num_heads num_key_value_heads step latency_ms",
    ),
    ("aiconfigurator", "all_reduce"): (
        "device,op_name,allreduce_dtype,num_gpus,message_size,backend,latency_ms",
        ["A100,all_reduce,bfloat16,2,4096,vllm_graph,0.02", "A100,all_reduce,bfloat16,4,4096,vllm_graph,0.03"],
        "num_gpus message_size latency_ms",
    ),
    ("llmservingsim", "layers_us"): ("layer,tokens,time_us", ["qkv_proj,8,50", "act_fn,8,3"], "tokens time_us"),
    ("llmservingsim", "mixed"): (
        "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us",
        ["0,0,4,1024,10", "64,0,4,1024,30", "64,0,0,0,20"],
        "prefill_chunk kv_prefill n_decode kv_decode time_us",
    ),
    ("llmservingsim", "layers_ns_tp1"): (
        "tokens,q_proj,k_proj,o_proj,gate_proj,down_proj,lm_head",
        ["1,900,300,900,2000,2000,9000", "2,900,300,900,2000,2000,9000"],
        "tokens o_proj gate_proj down_proj lm_head",
    ),
    ("vidur", "mlp"): (
        "num_tokens,num_tensor_parallel_workers,n_embd,n_expanded_embd,n_head,n_kv_head,"
        "input_layernorm_ms,attn_rope_ms,mlp_act_ms",
        ["8,1,4096,14336,32,8,0.01,0.02,0.03", "16,1,4096,14336,32,8,0.01,0.02,0.03"],
        "num_tokens n_embd n_expanded_embd n_head n_kv_head input_layernorm_ms attn_rope_ms mlp_act_ms",
    ),
    ("csv", "gemm"): ("m,n,k,time_s", ["8,4096,4096,1e-4", "16,4096,4096,1e-4"], "m n k time_s"),
    ("csv", "decode"): (
        "num_heads,num_kv_heads,sequences,context_tokens,time_s",
        ["32,8,4,1024,1e-5", "32,8,8,1024,1e-5"],
        "num_heads num_kv_heads sequences context_tokens time_s",
    ),
    ("csv", "prefill"): (
        "num_heads,num_kv_heads,sequences,prompt_tokens,time_s",
        ["32,8,1,1024,1e-3", "32,8,1,2048,1e-3"],
        "num_heads num_kv_heads sequences prompt_tokens time_s",
    ),
}  # fmt: skip
"""Header, rows and needed numbers of each kind."""

KINDS = sorted(TABLES)
NUMBERS = [(*kind, name) for kind in KINDS for name in TABLES[kind][2].split()]


def refusal(folder: Path, capsys: pytest.CaptureFixture[str], kind: tuple[str, str], content: str | bytes) -> str:
    """What is said of the file, one sentence; nothing is left beside it."""
    table = folder / f"{kind[1]}.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = str(folder / "mine.yaml")
    assert main(["profiles", "import", "--format", kind[0], str(table), "--hardware", "H200", "--out", out]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert [file.name for file in folder.iterdir()] == [table.name]
    return said.partition(str(table))[2]


def text_of(kind: tuple[str, str]) -> str:
    header, rows, _ = TABLES[kind]
    return "\n".join([header, *rows]) + "\n"


def with_value(kind: tuple[str, str], column: str, value: str) -> str:
    """The table with another ``value`` in the second row, which is line 3."""
    header, rows, _ = TABLES[kind]
    cells = rows[1].split(",")
    cells[header.split(",").index(column)] = value
    return "\n".join([header, rows[0], ",".join(cells), *rows[2:]]) + "\n"


def without_column(kind: tuple[str, str], column: str) -> str:
    header, rows, _ = TABLES[kind]
    place = header.split(",").index(column)
    lines = [line.split(",") for line in (header, *rows)]
    return "\n".join(",".join(cells[:place] + cells[place + 1 :]) for cells in lines) + "\n"


def test_there_is_a_table_of_every_kind() -> None:
    assert {table_format for table_format, _ in KINDS} == set(FORMATS)
    assert len(KINDS) == sum(len(kinds) for kinds in FORMATS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_whole_it_is_read(tmp_path: Path, kind: tuple[str, str]) -> None:
    table = tmp_path / f"{kind[1]}.csv"
    table.write_text(text_of(kind))
    read_tables([table], kind[0])


@pytest.mark.parametrize(("table_format", "name", "column"), NUMBERS)
@pytest.mark.parametrize("value", ["fast", "-1", "nan", "inf", "1;5", ""])
def test_a_cell_that_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table_format: str, name: str, column: str, value: str
) -> None:
    kind = (table_format, name)
    if name == "layers_ns_tp1" and value == "" and column != "tokens":
        pytest.skip("an empty cell of this table was not measured")
    said = refusal(tmp_path, capsys, kind, with_value(kind, column, value))
    assert said.startswith(", line 3: ")
    assert column in said


@pytest.mark.parametrize(("table_format", "name", "column"), NUMBERS)
def test_a_column_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table_format: str, name: str, column: str
) -> None:
    kind = (table_format, name)
    said = refusal(tmp_path, capsys, kind, without_column(kind, column))
    assert re.match(r", line [12]: ", said)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_a_header_alone_and_one_that_was_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: tuple[str, str]
) -> None:
    header, rows, _ = TABLES[kind]
    assert refusal(tmp_path, capsys, kind, "").startswith(", line ")
    assert refusal(tmp_path, capsys, kind, header + "\n").startswith(", line 2: there are no measurements")
    cut = text_of(kind).rstrip("\n")
    cut = cut[: cut.rindex(",")]
    assert refusal(tmp_path, capsys, kind, cut).startswith(f", line {len(rows) + 1}: has not as many values")


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_file_altogether(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: tuple[str, str]
) -> None:
    foreign = "name,age\nAda,36\n"
    assert refusal(tmp_path, capsys, kind, foreign).startswith(f", line 1: is no {kind[0]} table")
    assert refusal(tmp_path, capsys, kind, '{"model": "x"}\n').startswith(", line ")
    assert "is not a table of text" in refusal(tmp_path, capsys, kind, b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 20)
    nul = text_of(kind).encode().replace(b"\n", b"\n\x00", 1)
    assert refusal(tmp_path, capsys, kind, nul)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: tuple[str, str]) -> None:
    table_format, name = kind
    for other in FORMATS:
        if other != table_format:
            said = refusal(tmp_path, capsys, (other, name), text_of(kind))
            assert said.startswith(f", line 1: is no {other} table, which would have columns ")
