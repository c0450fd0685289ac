"""Typed access to the keys of a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simserve.errors import ModelError


@dataclass(frozen=True)
class Keys:
    """Typed access to a config's keys; a null counts as absent, as it does in transformers."""

    config: Mapping[str, Any]
    source: str

    def error(self, key: str, problem: str) -> ModelError:
        return ModelError(f"{self.source}: key '{key}' {problem}")

    def integer(self, key: str, default: int | None = None, minimum: int = 1) -> int:
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.error(key, f"must be a whole number of at least {minimum}, not {value!r}")
        return value

    def boolean(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def text(self, *keys: str) -> str:
        key = next((key for key in keys if self.config.get(key) is not None), keys[0])
        value = self._value(key, None)
        if not isinstance(value, str):
            raise self.error(key, f"must be a text, not {value!r}")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.config.get(key)
        value = default if value is None else value
        if value is None:
            raise self.error(key, "is missing")
        return value
