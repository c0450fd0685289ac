"""Every architecture gives the logits that transformers gives, in whatever pieces it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from engines.torch.tiny_models import MODELS  # noqa: E402
from simserve.engines.base import SamplingParams  # noqa: E402
from simserve.engines.torch.batch import Batch  # noqa: E402
from simserve.engines.torch.details import read_details  # noqa: E402
from simserve.engines.torch.runner import ModelRunner, load_runner  # noqa: E402
from simserve.engines.torch.sequence import Sequence  # noqa: E402
from simserve.errors import ModelError  # noqa: E402
from simserve.models import load_model  # noqa: E402
from simserve.scheduling import PrefillChunk  # noqa: E402

if TYPE_CHECKING:
    from engines.torch.conftest import TinyModel

Tiny = Callable[[str], "TinyModel"]


def logits_of(runner: ModelRunner, token_ids: list[int], chunks: list[int]) -> torch.Tensor:
    """Logits of every position, the prompt computed in ``chunks`` of so many tokens; pages in no particular order."""
    sequence = Sequence("a", token_ids, 1, SamplingParams())
    sequence.pages = [7, 2, 5, 9, 1, 4, 3, 8, 6, 10, 12, 11, 15, 14, 13, 16, 18, 17, 19, 20, 21]
    parts, context = [], 0
    with torch.inference_mode():
        for tokens in chunks:
            batch = Batch(runner.pages)
            batch.add_chunk(PrefillChunk(sequence, tokens, context, samples=True))
            parts.append(runner.model.logits(batch.hidden(runner.model)))
            context += tokens
    return torch.cat(parts)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str, tiny: Tiny, prompts: list[list[int]]) -> None:
    model = tiny(name)
    runner = load_runner(load_model(str(model.folder)), num_pages=32)
    token_ids = prompts[5]
    expected = model.logits(token_ids)
    assert expected.std() > 1  # so that the comparison says something
    for chunks in ([100], [16, 1, 50, 2, 31], [1] * 100):
        assert (logits_of(runner, token_ids, chunks) - expected).abs().max() < 1e-4


def test_a_long_chunk_is_attended_to_in_tiles(tiny: Tiny) -> None:
    """On top of a context, 290 tokens are more than one tile of 256: each row sees just what comes before it."""
    model = tiny("llama-2")
    runner = load_runner(load_model(str(model.folder)), num_pages=32)
    token_ids = torch.randint(3, 300, (310,), generator=torch.Generator().manual_seed(3)).tolist()
    assert (logits_of(runner, token_ids, [20, 290]) - model.logits(token_ids)).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_much_the_same(dtype: str, tiny: Tiny, prompts: list[list[int]]) -> None:
    model = tiny("qwen3")
    runner = load_runner(load_model(str(model.folder)), num_pages=32, dtype=dtype)
    expected = model.logits(prompts[5])
    off = (logits_of(runner, prompts[5], [60, 40]) - expected).abs()
    assert off.mean() < 0.05 * expected.std()


def test_plain_weights_give_what_packed_ones_give(tiny: Tiny, prompts: list[list[int]]) -> None:
    """Where oneDNN cannot pack, and where a compiler wants to see the weights, products are torch's own."""
    from simserve.engines.torch.build import build_transformer
    from simserve.engines.torch.weights import FolderWeights

    model = tiny("opt")
    weights = FolderWeights(model.folder, torch.device("cpu"), torch.float32)
    plain = ModelRunner(build_transformer(load_model(str(model.folder)), weights, packed=False), num_pages=32)
    assert (logits_of(plain, prompts[5], [100]) - model.logits(prompts[5])).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_act": "relu6"}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"type": "linear"}}, "needs a number 'factor'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_what_is_not_understood_is_refused(changes: dict[str, object], complaint: str, tmp_path: object) -> None:
    import json
    from pathlib import Path

    folder = Path(str(tmp_path))
    spec = load_model("simserve/tiny-llama")
    assert spec.path is not None
    config = json.loads((spec.path / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=complaint):
        read_details(replace(spec, path=folder))


def test_end_tokens_come_from_both_files(tmp_path: object) -> None:
    """A chat model's end of turn stands in generation_config.json, the end of text in config.json."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    spec = load_model("simserve/tiny-llama")
    assert spec.path is not None
    (folder / "config.json").write_text((spec.path / "config.json").read_text())
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 2], "temperature": 0.6, "do_sample": true}')
    details = read_details(replace(spec, path=folder))
    assert details.eos_token_ids == (7, 2)
    assert details.generation == {"temperature": 0.6}
