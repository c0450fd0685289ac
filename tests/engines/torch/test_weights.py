"""Files that are broken, incomplete or of another model are refused in a sentence that names file and tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from safetensors.torch import load_file, save_file  # noqa: E402

from simserve.engines.torch.runner import load_runner  # noqa: E402
from simserve.engines.torch.weights import RandomWeights  # noqa: E402
from simserve.errors import ModelError  # noqa: E402
from simserve.models import load_model  # noqa: E402

if TYPE_CHECKING:
    from engines.torch.conftest import TinyModel

TENSOR = "model.layers.1.self_attn.k_proj.weight"


@pytest.fixture
def folder(tiny: Callable[[str], TinyModel], tmp_path: Path) -> Path:
    """A copy of a model, to be spoiled."""
    shutil.copytree(tiny("llama-2").folder, tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path) -> None:
    load_runner(load_model(str(folder)), num_pages=4)


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def test_a_missing_tensor(folder: Path) -> None:
    change(folder, lambda tensors: tensors.pop(TENSOR))
    with pytest.raises(ModelError, match=rf"tensor {TENSOR} is missing; it is in none of model.safetensors"):
        load(folder)


def test_a_wrong_shape(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({TENSOR: torch.zeros(48, 47)}))
    with pytest.raises(ModelError, match=rf"model.safetensors: tensor {TENSOR} has shape \[48, 47\].*\[48, 48\]"):
        load(folder)


def test_a_wrong_dtype(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({TENSOR: torch.zeros(48, 48, dtype=torch.int8)}))
    with pytest.raises(ModelError, match=rf"model.safetensors: tensor {TENSOR} is int8"):
        load(folder)


def test_a_truncated_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model.safetensors: cannot be read.*download it again"):
        load(folder)


def test_something_else_than_a_safetensors_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 3)
    with pytest.raises(ModelError, match=r"model.safetensors: cannot be read"):
        load(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no \*.safetensors file"):
        load(folder)


def test_shards_with_an_index(tiny: Callable[[str], TinyModel], folder: Path) -> None:
    from engines.torch.test_models import logits_of

    model = tiny("llama-2")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.reference.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    runner = load_runner(load_model(str(folder)), num_pages=32)
    token_ids = list(range(5, 45))
    assert (logits_of(runner, token_ids, [40]) - model.logits(token_ids)).abs().max() < 1e-4


def test_a_shard_that_is_missing(folder: Path) -> None:
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00001-of-00002.safetensors: cannot be read"):
        load(folder)


def test_an_index_that_is_none(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    with pytest.raises(ModelError, match=r"model.safetensors.index.json: is not an index"):
        load(folder)


def test_an_architecture_that_nobody_knows(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["MambaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config.json: key 'architectures' is 'MambaForCausalLM'"):
        load(folder)


def test_random_weights_are_the_same_again() -> None:
    one, other = (RandomWeights(torch.device("cpu"), torch.float32, seed=3) for _ in range(2))
    assert torch.equal(one.get("a.weight", 4, 5), other.get("a.weight", 4, 5))
    assert torch.equal(one.get("a.bias", 4), torch.zeros(4))
    assert torch.equal(one.get("norm.weight", 4), torch.ones(4))
