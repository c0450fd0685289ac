"""Where a model's tensors come from: the safetensors files of its folder, or random numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from simserve.errors import ModelError

INDEX_FILE = "model.safetensors.index.json"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
RANDOM_STD = 0.02


class Weights(Protocol):
    """Tensors by the names that Hugging Face gives them."""

    def get(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor ``name``, which must have ``shape``, on the device and in the dtype of the model."""
        ...


class RandomWeights:
    """Weights as before training, the same for the same ``seed``: for measuring, where only shapes matter."""

    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        self._device, self._dtype = device, dtype
        self._generator = torch.Generator(device).manual_seed(seed)

    def get(self, name: str, *shape: int) -> torch.Tensor:
        """See :class:`Weights`: biases are 0, norms 1, all else normal."""
        tensor = torch.empty(shape, device=self._device, dtype=self._dtype)
        if name.endswith("bias"):
            return tensor.zero_()
        return tensor.fill_(1.0) if len(shape) == 1 else tensor.normal_(0.0, RANDOM_STD, generator=self._generator)


class FolderWeights:
    """The ``*.safetensors`` files of a model folder, one or many; tensors are read when asked for."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._folder, self._device, self._dtype = folder, device, dtype
        self._open: dict[Path, Any] = {}
        self._files = self._find()

    def get(self, name: str, *shape: int) -> torch.Tensor:
        """See :class:`Weights`; raises :class:`ModelError` naming file and tensor."""
        file, stored = self._where(name)
        try:
            tensor: torch.Tensor = self._reader(file).get_tensor(stored)
        except SafetensorError as error:
            raise ModelError(f"{file}: tensor {stored} cannot be read ({error}); download the file again") from None
        if tensor.dtype not in FLOATS:
            raise ModelError(
                f"{file}: tensor {stored} is {_name(tensor.dtype)}, and the torch engine computes with "
                f"{', '.join(map(_name, FLOATS))}; take the model before quantisation"
            )
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{file}: tensor {stored} has shape {list(tensor.shape)}, and by config.json it should have "
                f"{list(shape)}; the files do not belong together"
            )
        return tensor.to(self._device, self._dtype)

    def _where(self, name: str) -> tuple[Path, str]:
        for stored in (name, name.removeprefix("model.")):  # base models are saved without the prefix
            if stored in self._files:
                return self._files[stored], stored
        files = sorted({file.name for file in self._files.values()})
        raise ModelError(f"{self._folder}: tensor {name} is missing; it is in none of {', '.join(files)}")

    def _find(self) -> dict[str, Path]:
        """Which file each tensor is in."""
        index = self._folder / INDEX_FILE
        if index.is_file():
            try:
                names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                return {name: self._folder / file for name, file in names.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ModelError(f"{index}: is not an index of safetensors files ({error!r})") from None
        files = sorted(self._folder.glob("*.safetensors"))
        if not files:
            raise ModelError(
                f"{self._folder}: has no *.safetensors file; download the weights in that format, or ask "
                "for random ones"
            )
        return {name: file for file in files for name in self._reader(file).keys()}  # noqa: SIM118

    def _reader(self, file: Path) -> Any:
        if file not in self._open:
            try:
                self._open[file] = safe_open(str(file), framework="pt")
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{file}: cannot be read as a safetensors file ({error}); download it again") from None
        return self._open[file]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
