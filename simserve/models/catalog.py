"""Finding a model: a path of the user's, or the hub's name of one shipped under ``models/<org>/<name>/config.json``."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from simserve.errors import ModelError
from simserve.models.huggingface import parse_config
from simserve.models.spec import ModelSpec
from simserve.resources import data_dir


def load_model(name_or_path: str) -> ModelSpec:
    """Load a model's shapes from a folder with a config.json, a config.json, or the name of a shipped model.

    A name is matched regardless of case, in full (``Qwen/Qwen3-8B``) or by the part after the slash (``qwen3-8b``).
    Raises :class:`ModelError` when there is no such model or its config cannot be understood.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return _read(path, name=path.resolve().parent.name)
    if (path / "config.json").is_file():
        return _read(path / "config.json", name=path.resolve().name)
    name = _find(name_or_path)
    return _read(data_dir("models") / name / "config.json", name)


def list_models() -> list[str]:
    """Names of the shipped models, as on the hub, sorted."""
    root = data_dir("models")
    configs = root.glob("*/*/config.json")
    return sorted((path.parent.relative_to(root).as_posix() for path in configs), key=str.lower)


def _read(file: Path, name: str) -> ModelSpec:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"{file}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file}: must hold a JSON object, as a Hugging Face config.json does")
    return parse_config(config, source=str(file), name=name, path=file.parent)


def _find(name: str) -> str:
    names = list_models()
    wanted = name.lower()
    exact = [known for known in names if known.lower() == wanted]
    matches = exact or [known for known in names if known.split("/")[1].lower() == wanted]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ModelError(f"model '{name}' could be any of {', '.join(matches)}: give the full name")
    raise ModelError(_unknown(name, names))


def _unknown(name: str, names: list[str]) -> str:
    by_lower = {key: known for known in names for key in (known.lower(), known.split("/")[1].lower())}
    close = dict.fromkeys(by_lower[key] for key in difflib.get_close_matches(name.lower(), by_lower, n=3))
    hint = f" (closest: {', '.join(close)})" if close else ""
    return f"model '{name}' is not known{hint}: give a folder with a config.json, or one of {', '.join(names)}"
