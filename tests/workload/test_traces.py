"""Traces: each format by a few handwritten rows, what is wrong with a file in one sentence, and the real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from simserve.errors import WorkloadError
from simserve.workload import Workload, block_hashes, read_trace
from simserve.workload.traces import FORMATS

PLAIN = "arrival_s,input_tokens,output_tokens"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
BURST_2 = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"

Write = Callable[..., str]


@pytest.fixture(name="write")
def write_a_trace_file(tmp_path: Path) -> Write:
    """Write lines into a file (without a last line break, as Azure does) and return its path."""

    def write(*lines: str, name: str = "trace.csv") -> str:
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return str(tmp_path / name)

    return write


def rows(workload: Workload) -> list[tuple[float, int, int]]:
    columns = (workload.arrival_s, workload.input_tokens, workload.output_tokens)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# Formats, one by one


def test_plain_csv(write: Write) -> None:
    workload = read_trace(write(PLAIN, "0.5,10,20", "1.75,30,40", ""))
    assert rows(workload) == [(0.0, 10, 20), (1.25, 30, 40)]
    assert workload.name == "trace.csv"
    assert workload.prefix is None


def test_plain_csv_may_label_its_requests(write: Write) -> None:
    assert rows(read_trace(write("request_id," + PLAIN, "a,0,1,2"))) == [(0.0, 1, 2)]


def test_cached_tokens_become_prefixes_of_earlier_prompts(write: Write) -> None:
    """The second prompt begins with 32 tokens of an earlier one: the first, which has two full units of 16."""
    header = PLAIN + ",cached_tokens"
    assert read_trace(write(header, "0,10,20,0")).prefix is None
    prefix = read_trace(write(header, "0,40,20,0", "1,100,20,32", "2,50,5,0")).prefix
    assert prefix is not None
    assert prefix.of(0) == prefix.of(1)[:2]
    assert len(prefix.of(1)) == 6
    assert not set(prefix.of(2)) & set(prefix.of(1))


def test_azure_2023(write: Write) -> None:
    lines = ("2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109")
    assert rows(read_trace(write(AZURE, *lines))) == [(0.0, 374, 44), (pytest.approx(4.314579, abs=1e-6), 396, 109)]


def test_azure_2024_says_its_time_zone(write: Write) -> None:
    lines = ("2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:01+00:00,2399,6")
    assert read_trace(write(AZURE, *lines)).arrival_s == pytest.approx([0.0, 0.99007], abs=1e-6)


def test_burstgpt_leaves_out_failed_requests_and_counts_them(write: Write) -> None:
    lines = ("5,ChatGPT,472,18,490,Conversation log", "6,GPT-4,87,0,87,API log", "45,GPT-4,1087,230,1317,API log")
    workload = read_trace(write(BURST, *lines))
    assert rows(workload) == [(0.0, 472, 18), (40.0, 1087, 230)]
    assert workload.dropped_requests == 1


def test_burstgpt_with_sessions(write: Write) -> None:
    lines = ("19440110.0,17-ca,43,GPT-4,906,446,1352,Conversation log", "19440161.5,,2,ChatGPT,36,29,65,API log")
    assert rows(read_trace(write(BURST_2, *lines))) == [(0.0, 906, 446), (51.5, 36, 29)]


def test_burstgpt_errors_count_lines_of_the_file_not_of_what_is_left(write: Write) -> None:
    lines = ("5,ChatGPT,472,0,472,API log", "6,ChatGPT,many,3,490,API log")
    with pytest.raises(WorkloadError, match="line 3: Request tokens is 'many'"):
        read_trace(write(BURST, *lines))


def test_mooncake_hash_ids_become_prefix_units(write: Write) -> None:
    workload = read_trace(
        write(
            '{"timestamp": 1000, "input_length": 1000, "output_length": 5, "hash_ids": [0, 1]}',
            '{"timestamp": 4000, "input_length": 513, "output_length": 6, "hash_ids": [0, 2]}',
            "",
            name="trace.jsonl",
        )
    )
    assert rows(workload) == [(0.0, 1000, 5), (3.0, 513, 6)]
    assert workload.prefix is not None
    assert workload.prefix.unit_tokens == 512
    assert [workload.prefix.of(0), workload.prefix.of(1)] == [[0, 1], [0, 2]]


def test_mooncake_without_hash_ids_shares_nothing(write: Write) -> None:
    assert read_trace(write('{"timestamp": 0, "input_length": 9, "output_length": 5}')).prefix is None


def test_llmservingsim_token_ids_become_prefix_units(write: Write) -> None:
    first, second = list(range(40)), [*range(16), 99, 98]
    workload = read_trace(
        write(
            f'{{"input_toks": 40, "output_toks": 7, "arrival_time_ns": 500000000, "input_tok_ids": {first}}}',
            f'{{"input_toks": 18, "output_toks": 8, "arrival_time_ns": 2000000000, "input_tok_ids": {second}}}',
            '{"input_toks": 5, "output_toks": 9, "arrival_time_ns": 3000000000}',
        )
    )
    assert rows(workload) == [(0.0, 40, 7), (1.5, 18, 8), (2.5, 5, 9)]
    assert workload.prefix is not None
    assert workload.prefix.unit_tokens == 16
    assert workload.prefix.of(0) == block_hashes(first)
    assert workload.prefix.of(1) == block_hashes(first)[:1]
    assert workload.prefix.of(2) == []


def test_rows_are_put_in_order_of_arrival_with_their_prefixes(write: Write) -> None:
    workload = read_trace(
        write(
            '{"timestamp": 9000, "input_length": 600, "output_length": 1, "hash_ids": [7, 8]}',
            '{"timestamp": 5000, "input_length": 5, "output_length": 2, "hash_ids": [4]}',
            '{"timestamp": 9000, "input_length": 6, "output_length": 3, "hash_ids": [5]}',
            '{"timestamp": 5000, "input_length": 1500, "output_length": 4, "hash_ids": [1, 2, 3]}',
        )
    )
    assert rows(workload) == [(0.0, 5, 2), (0.0, 1500, 4), (4.0, 600, 1), (4.0, 6, 3)]
    assert workload.prefix is not None
    assert [workload.prefix.of(row) for row in range(4)] == [[4], [1, 2, 3], [7, 8], [5]]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + f"{PLAIN}\r\n0,1,2\r\n\r\n1,3,4\r\n".encode())
    assert rows(read_trace(str(tmp_path / "excel.csv"))) == [(0.0, 1, 2), (1.0, 3, 4)]


# What is wrong with a file: one sentence, with the line

MOONCAKE_ROW = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}'


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            [AZURE, "2023-11-16 18:15:46,5,5", "2023-11-16 18:15:47,5,abc"],
            "trace.csv line 3: GeneratedTokens is 'abc'; it must be a whole number of tokens, at least 1",
        ),
        ([AZURE, "2023-11-16 18:15:46,0,5"], "line 2: ContextTokens is '0'; it must be a whole number of tokens"),
        ([AZURE, "yesterday,5,5"], "line 2: TIMESTAMP is 'yesterday'; it must be a time such as"),
        ([PLAIN, "0,1,2", "", "1,2.5,3"], "line 4: input_tokens is '2.5'; it must be a whole number of tokens"),
        ([PLAIN, "nan,1,2"], "line 2: arrival_s is 'nan'; it must be a time in seconds"),
        ([PLAIN, f"0,1,{10**30}"], "line 2: output_tokens is '1000000"),
        ([PLAIN, "0,1,2", "1,2"], "line 3: 2 columns where the header has 3"),
        ([PLAIN], "has a header but no rows"),
        ([""], "is empty; give a trace with at least one request"),
        ([PLAIN + ",priority", "0,1,2,3"], "looks like plain CSV but also has priority"),
        ([PLAIN + ",arrival_s", "0,1,2,3"], "two columns of the same name"),
        (["time,length", "0,1"], "has the columns time, length, which is no trace format that SimServe knows"),
        ([BURST, "5,ChatGPT,472,0,472,API log"], "only failed requests"),
        ([MOONCAKE_ROW, '{"timestamp": 0'], "line 2: not valid JSON"),
        ([MOONCAKE_ROW, "[1]"], "line 2: [1] is not a JSON object"),
        ([MOONCAKE_ROW, '{"timestamp": 1, "output_length": 5}'], "line 2: input_length is missing"),
        ([MOONCAKE_ROW.replace("600", '"x"')], "line 1: input_length is 'x'; it must be a whole number"),
        ([MOONCAKE_ROW.replace("600", "true")], "line 1: input_length is True; it must be a whole number"),
        ([MOONCAKE_ROW.replace("600", "1100")], "line 1: hash_ids is [1, 2]; it must be 3 ids, one per 512 tokens"),
        ([MOONCAKE_ROW.replace("[1, 2]", '[1, "b"]')], "line 1: hash_ids is [1, 'b']; it must be a list of whole"),
        (
            ['{"input_toks": 3, "output_toks": 1, "arrival_time_ns": 0, "input_tok_ids": [1, 2]}'],
            "line 1: input_tok_ids is [1, 2]; it must be a list of 3 token ids",
        ),
        (
            ['{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 0, "input_tok_ids": [1, -2]}'],
            "line 1: input_tok_ids is [1, -2]; it must be a list of whole numbers, at least 0",
        ),
    ],
)
def test_a_bad_trace_is_one_sentence(write: Write, lines: list[str], sentence: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        read_trace(write(*lines))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_header_is_answered_with_every_format_understood(write: Write) -> None:
    with pytest.raises(WorkloadError) as caught:
        read_trace(write("a,b", "1,2"))
    assert all(name in str(caught.value) for name in FORMATS)


def test_a_binary_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(WorkloadError, match="not a text file in UTF-8"):
        read_trace(str(tmp_path / "trace.csv"))


def test_a_missing_file_is_one_sentence() -> None:
    with pytest.raises(WorkloadError, match=r"cannot read the trace nowhere\.csv: No such file"):
        read_trace("nowhere.csv")


# From the web


@pytest.fixture(name="site")
def serve_a_folder(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_trace_is_read_from_the_web(write: Write, site: str) -> None:
    write(PLAIN, "0,1,2", name="mine.csv")
    workload = read_trace(f"{site}/mine.csv?raw=true")
    assert rows(workload) == [(0.0, 1, 2)]
    assert workload.name == "mine.csv"


def test_a_trace_that_is_not_there_is_one_sentence(site: str) -> None:
    with pytest.raises(WorkloadError, match=r"cannot download the trace .*none\.csv: HTTP Error 404"):
        read_trace(f"{site}/none.csv")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/trace.csv", "http://[/trace.csv"])
def test_an_address_that_does_not_answer_is_one_sentence(url: str) -> None:
    with pytest.raises(WorkloadError, match="cannot download the trace"):
        read_trace(url)


# Real traces, where they lie beside the project

SHARED = Path(__file__).resolve().parents[3] / "shared/traces"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded traces are not beside this checkout (../shared)")


@real
def test_azure_conversations() -> None:
    workload = read_trace(str(SHARED / "AzureLLMInferenceTrace_conv.csv"))
    assert len(workload) == 19_366
    assert round(workload.input_tokens.mean()) == 1155
    assert round(workload.output_tokens.mean()) == 211
    assert workload.arrival_s[-1] == pytest.approx(3501.72, abs=0.01)


@real
def test_azure_code() -> None:
    workload = read_trace(str(SHARED / "AzureLLMInferenceTrace_code.csv"))
    assert (len(workload), round(workload.input_tokens.mean()), workload.input_tokens.max()) == (8819, 2048, 7437)


@real
def test_mooncake_conversations() -> None:
    workload = read_trace(str(SHARED / "mooncake_conversation_trace.jsonl"))
    assert len(workload) == 12_031
    assert workload.prefix is not None
    assert np.array_equal(np.diff(workload.prefix.offsets), -(-workload.input_tokens // 512))
    # With an endless cache, every unit that was seen before is a hit: 36.6 % of them.
    assert 1 - len(np.unique(workload.prefix.ids)) / len(workload.prefix.ids) == pytest.approx(0.366, abs=0.001)


@real
@pytest.mark.parametrize(
    ("name", "expected"), [("burstgpt_v1_schema_fixture.csv", 3), ("burstgpt_v2_schema_fixture.csv", 2)]
)
def test_burstgpt(name: str, expected: int) -> None:
    workload = read_trace(str(SHARED / name))
    assert (len(workload), workload.arrival_s[0]) == (expected, 0.0)


@real
def test_llmservingsim() -> None:
    workload = read_trace(str(SHARED / "llmservingsim_example_trace.jsonl"))
    assert len(workload) == 10
    assert workload.prefix is not None
    assert len(workload.prefix.offsets) == 11


@real
@pytest.mark.parametrize("path", sorted(SHARED.glob("workloads/distserve_*.csv")), ids=lambda path: path.name)
def test_plain_workloads(path: Path) -> None:
    assert len(read_trace(str(path))) == int(path.stem.split("-")[1])
