"""Predictions beside what real servers did. Nothing was tuned to these runs: what holds here may break, and tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from simserve.calibration.compare import Comparison, compare
from simserve.calibration.measured_run import read_measured_run
from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model

SERVING = Path(__file__).parents[2].parent / "shared" / "measurements" / "serving"
pytestmark = pytest.mark.skipif(not SERVING.is_dir(), reason=f"the measured runs are not in {SERVING}")


def compared(run: str, model: str, hardware: str, **options: object) -> Comparison:
    return compare(
        read_measured_run(SERVING / run), load_model(model), load_hardware(hardware), EngineOptions(**options)
    )


def test_an_overloaded_rtx4090_with_vllm_0_19() -> None:
    blocks = {"num_gpu_blocks": 2588, "max_num_seqs": 256, "max_num_batched_tokens": 2048}
    found = compared("RTX4090_Llama-3.1-8B_vllm0.19", "Llama-3.1-8B", "RTX4090", **blocks)

    assert abs(found.worst.error) < 0.03
    assert all(figure.in_band for figure in found.figures)


def test_an_rtx3090_with_the_prefill_first_vllm_of_2024() -> None:
    """GPT3-7B has the shapes of OPT-6.7B. Attention was never measured on this device; it is the A100's."""
    found = compared("RTX3090_GPT3-7B_vllm2024", "facebook/opt-6.7b", "RTX3090", engine_preset="vllm-0.5")

    assert {figure.metric for figure in found.figures} == {"duration", "output tokens/s"}
    assert abs(found.worst.error) < 0.08
    assert all(figure.in_band for figure in found.figures)
