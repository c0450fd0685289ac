"""Host time per engine step that microsoft/vidur measured beside A100s, of the vLLM of 2023-2024."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.calibration.importers.table import read_columns
from simserve.calibration.points import Floats

MS = 1e-3
PARTS = ("schedule_median", "sampler_e2e_median", "prepare_inputs_e2e_median", "process_model_outputs_median")


def read_host_steps(file: Path) -> tuple[Floats, Floats]:
    """(running requests, host seconds) of each measured step on one device; what model execution hides is left out."""
    table = read_columns(file, ("batch_size", "tensor_parallel_degree", *PARTS))
    alone = table["tensor_parallel_degree"] == 1
    seconds = np.sum([table[part] for part in PARTS], axis=0) * MS
    return table["batch_size"][alone], seconds[alone]
