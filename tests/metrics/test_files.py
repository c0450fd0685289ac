"""The files a run leaves behind: readable by the usual tools, the same bytes for the same run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simserve.errors import ConfigError
from simserve.metrics.files import make_folder, write_run
from simserve.metrics.records import Records

COLUMNS = [
    "arrival_s", "scheduled_s", "first_token_s", "finish_s", "input_tokens", "output_tokens", "cached_tokens",
    "preemptions", "status", "ttft_ms", "tpot_ms", "e2e_ms",
]  # fmt: skip


def test_csv_and_parquet_hold_one_row_per_request(records: Records, tmp_path: Path) -> None:
    csv, parquet, _ = write_run(tmp_path, records, {})
    table = pd.read_csv(csv)

    assert list(table.columns) == COLUMNS
    assert list(table.status) == ["finished", "finished", "finished", "aborted", "rejected"]
    assert list(table.ttft_ms[:3]) == pytest.approx([1000, 3000, 5000])
    assert list(table.tpot_ms[:2]) == pytest.approx([100, 500])
    assert list(table.cached_tokens) == [0, 50, 200, 0, 0]
    pd.testing.assert_frame_equal(table, pd.read_parquet(parquet), check_dtype=False)


def test_what_never_happened_is_empty_rather_than_nan(records: Records, tmp_path: Path) -> None:
    lines = write_run(tmp_path, records, {})[0].read_text().splitlines()

    assert lines[0] == ",".join(COLUMNS)
    assert lines[5] == "4,,,,500,0,0,0,rejected,,,"


def test_times_survive_to_the_bit(records: Records, tmp_path: Path) -> None:
    exact = np.array([0.1, 1 / 3, 2.0000000000000004, 3.0, 1e-9])
    records.arrival_s[:] = exact
    csv, parquet, _ = write_run(tmp_path, records, {})
    rows = csv.read_text().splitlines()[1:]

    assert [float(row.split(",")[0]) for row in rows] == list(exact)
    assert np.array_equal(pd.read_parquet(parquet).arrival_s, exact)


def test_the_same_run_gives_the_same_bytes(records: Records, tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", records, {"completed": 3})
    again = write_run(tmp_path / "again", records, {"completed": 3})

    assert [path.name for path in first] == ["requests.csv", "requests.parquet", "summary.json"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert json.loads(first[2].read_text()) == {"completed": 3}


def test_a_file_in_the_way_is_an_error_in_one_sentence(records: Records, tmp_path: Path) -> None:
    in_the_way = tmp_path / "results"
    in_the_way.write_text("mine")

    with pytest.raises(ConfigError, match=r"cannot write to .*results.*give a folder"):
        make_folder(in_the_way)
    with pytest.raises(ConfigError, match=r"cannot write to .*results"):
        write_run(in_the_way, records, {})
    assert in_the_way.read_text() == "mine"
