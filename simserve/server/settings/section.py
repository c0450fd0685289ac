"""What all sections of the settings share, and the engine's options as keys of a section."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from simserve.config import DTYPE_NAMES, EngineOptions
from simserve.errors import ConfigError


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def setting(default: Any, description: str) -> Any:
    """A key with what it is for, which ``docs/configuration.md`` repeats."""
    return Field(default=default, description=description)


def contradiction(message: str) -> PydanticCustomError:
    """An error for keys that cannot both be honoured; ``message`` names them."""
    return PydanticCustomError("contradiction", message.replace("{", "{{").replace("}", "}}"))


class _EngineKeys(Section):
    @model_validator(mode="after")
    def _an_engine_could_run_with_them(self) -> _EngineKeys:
        try:
            EngineOptions(**engine_options_in(self))
        except ConfigError as error:
            raise contradiction(keys_for_flags(str(error))) from None
        return self


def engine_keys(name: str, without: str) -> type[_EngineKeys]:
    """A section with a key for every option of the engine but ``without``; its values are checked as the engine's."""
    hints = get_type_hints(EngineOptions)
    options = [field.name for field in fields(EngineOptions) if field.name != without]
    keys = {name: (hints[name] | None, setting(None, f"`--{name.replace('_', '-')}`")) for name in options}
    return create_model(name, __base__=_EngineKeys, **keys)  # type: ignore[call-overload, no-any-return]


def engine_options_in(section: BaseModel) -> dict[str, Any]:
    """The engine's options that ``section`` states, by name."""
    names = {field.name for field in fields(EngineOptions)} & section.model_fields_set
    given = {name: value for name in names if (value := getattr(section, name)) is not None}
    if "dtype" in given:
        given["dtype"] = DTYPE_NAMES.get(given["dtype"], given["dtype"])
    return given


def keys_for_flags(sentence: str) -> str:
    """``--max-num-seqs must be ...`` as ``max_num_seqs must be ...``."""
    return re.sub(r"--([a-z][a-z0-9-]*)", lambda flag: flag[1].replace("-", "_"), sentence)
