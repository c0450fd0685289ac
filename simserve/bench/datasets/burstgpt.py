"""``burstgpt``: lengths of real requests to GPT-4; when they came is left out (``timed_trace`` keeps it)."""

from __future__ import annotations

import numpy as np

from simserve.bench.datasets.base import Drawn, Order
from simserve.bench.datasets.random_text import PromptWriter
from simserve.errors import WorkloadError
from simserve.workload.traces.table import parse_table

MODEL = "GPT-4"


def draw_burstgpt(order: Order) -> Drawn:
    """Rows of that model which were answered, of either version of the file: columns are told by their names."""
    path = order.file()
    table = parse_table(str(path), path.read_bytes())
    needed = ("Model", "Request tokens", "Response tokens")
    if missing := [name for name in needed if name not in table.columns]:
        raise WorkloadError(f"{path} lacks the column {missing[0]}; give a CSV of BurstGPT")
    chosen = np.array([model == MODEL for model in table.columns["Model"]])
    inputs, outputs = table.tokens("Request tokens", least=0), table.tokens("Response tokens", least=0)
    rows = np.flatnonzero(chosen & (outputs > 0) & (inputs > 0))
    if not rows.size:
        raise WorkloadError(f"{path} has no answered request to {MODEL}; give a CSV of BurstGPT that has some")
    rng = np.random.default_rng(order.seed)
    enough = len(rows) >= order.count
    count = order.count if enough or order.oversample else len(rows)
    rows = rng.choice(rows, count, replace=count > len(rows))
    writer = PromptWriter(order.tokenizer, rng)
    nothing = writer.prefix(0)
    samples = [
        writer.sample(nothing, int(inputs[row]), place, int(outputs[row])) for place, row in enumerate(rows.tolist())
    ]
    return Drawn(samples, notes=writer.notes())
