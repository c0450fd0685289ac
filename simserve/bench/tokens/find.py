"""Find the tokenizer that belongs to a model, without reaching for the network unless told to."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from simserve.bench.tokens.counter import Estimate, TextTokenizer, TokenCounter, TransformersTokenizer
from simserve.errors import ConfigError, ModelError
from simserve.workload import load_tokenizer

FILE = "tokenizer.json"

TRUST_NOTE = "--trust-remote-code: a tokenizer.json runs no code, so none had to be trusted"

Mode = Literal["auto", "hf", "slow"]


@dataclass(frozen=True)
class TokenizerOptions:
    """What the command line says: a ``name`` is a folder, a file, or a model on the Hugging Face hub.

    ``mode`` "auto" reads a tokenizer.json; "hf" and "slow" use the transformers library, as does
    ``trust_remote_code`` where that is installed. ``skip`` does without any.
    """

    name: str | None = None
    mode: Mode = "auto"
    trust_remote_code: bool = False
    skip: bool = False


class Found(NamedTuple):
    """A counter, and what the user should know of where it came from ("" if nothing)."""

    counter: TokenCounter
    note: str


def find_counter(options: TokenizerOptions, model: str) -> Found:
    """The tokenizer that was named, else that of ``model`` if it lies on this machine, else the estimate.

    Only a tokenizer that was named is downloaded. Raises :class:`ConfigError` if that cannot be had.
    """
    if options.skip:
        return Found(Estimate(), "tokens are estimated from characters where the server does not count them")
    runs_code = options.trust_remote_code and options.name is not None and find_spec("transformers") is not None
    if options.mode != "auto" or runs_code:
        return Found(_from_transformers(options, options.name or model), "")
    note = TRUST_NOTE if options.trust_remote_code else ""
    if options.name is not None:
        return Found(_named(options.name), note)
    folder = _local_folder(model)
    if folder is not None:
        return Found(TextTokenizer(load_tokenizer(folder), model), note)
    note = f"no tokenizer of {model} on this machine: tokens are estimated from characters where the server does not"
    return Found(Estimate(), f"{note} count them; --tokenizer names one")


def _named(name: str) -> TextTokenizer:
    path = Path(name)
    if path.is_file():
        path = path.parent
    folder = _local_folder(name) if not (path / FILE).is_file() else path
    if folder is None:
        folder = _downloaded(name)
    return TextTokenizer(load_tokenizer(folder), name)


def _local_folder(name: str) -> Path | None:
    """A folder on this machine that holds the tokenizer of ``name``: its own, one of ours, or the hub's cache."""
    from simserve.models import load_model

    if (Path(name) / FILE).is_file():
        return Path(name)
    try:
        shipped = load_model(name).path
    except ModelError:
        shipped = None
    if shipped is not None and (shipped / FILE).is_file():
        return shipped
    if name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, FILE)
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _downloaded(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, FILE)).parent
    except Exception as error:  # the library's own errors, those of HTTP, and those of the disk
        reason = str(error).strip().splitlines()[0][:150]
        raise ConfigError(
            f"--tokenizer {name}: no {FILE} here and none could be downloaded ({reason});"
            " give a folder that holds one, or --skip-tokenizer-init"
        ) from None


def _from_transformers(options: TokenizerOptions, name: str) -> TransformersTokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ConfigError(
            f"--tokenizer-mode {options.mode} needs transformers; install it, or leave the mode out to read {FILE}"
        ) from None
    try:
        inner = AutoTokenizer.from_pretrained(
            name, use_fast=options.mode != "slow", trust_remote_code=options.trust_remote_code
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:150]
        raise ConfigError(
            f"transformers cannot load the tokenizer {name} ({reason}); give --tokenizer a folder"
        ) from None
    return TransformersTokenizer(inner, name)
