"""Tools that a chat may call, and which of them it must, may or must not: OpenAI's fields, read and checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from simserve.server.answers.schemas import check_schema
from simserve.server.errors import ApiError
from simserve.server.fields import Fields, Flag

NAME_PATTERN = r"^[a-zA-Z0-9_.-]{1,128}$"


class Function(Fields):
    """A function: its arguments are an object that satisfies ``parameters``; without them there are none."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Flag = False

    def schema_of_arguments(self) -> dict[str, Any]:
        """What the arguments must satisfy: an object in any case."""
        return {"type": "object", **(self.parameters or {"additionalProperties": False})}


class Tool(BaseModel):
    """One of ``tools``; functions alone can be called. What else a client says of it goes into the prompt."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(BaseModel):
    """The function in a ``tool_choice`` that names one."""

    name: str


class NamedTool(BaseModel):
    """A ``tool_choice`` that names a function, which is called then and no other."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(BaseModel):
    """Which of the tools may be called, and whether one must be."""

    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[NamedTool], Field(min_length=1)]


class AllowedToolsChoice(BaseModel):
    """A ``tool_choice`` that allows some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice(value: object) -> object:
    """Say in one sentence what a ``tool_choice`` can be, where it is none of that."""
    if isinstance(value, str) and value not in ("none", "auto", "required"):
        raise PydanticCustomError("tool_choice", "give none, auto, required, or name a function")
    if not isinstance(value, str | dict):
        raise PydanticCustomError("tool_choice", "give none, auto, required, or name a function")
    return value


ToolChoice = Annotated[Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice, BeforeValidator(_choice)]


def usable(tools: list[Tool], choice: str | NamedTool | AllowedToolsChoice | None) -> list[Tool]:
    """The tools that ``choice`` leaves; raises :class:`ApiError` (400) if it names one that is not there."""
    if choice == "none":
        return []
    if isinstance(choice, NamedTool):
        names = [choice.function.name]
    elif isinstance(choice, AllowedToolsChoice):
        names = [tool.function.name for tool in choice.allowed_tools.tools]
    else:
        return tools
    known = {tool.function.name: tool for tool in tools}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ApiError(
            f"`tool_choice` names the function {unknown[0]!r}, which is not in `tools`.", param="tool_choice"
        )
    return [known[name] for name in names]


def must_call(choice: str | NamedTool | AllowedToolsChoice | None) -> bool:
    """Whether the answer has to be a call."""
    if isinstance(choice, AllowedToolsChoice):
        return choice.allowed_tools.mode == "required"
    return choice == "required" or isinstance(choice, NamedTool)


def check_tools(tools: list[Tool]) -> None:
    """Raise :class:`ApiError` (400) for parameters that are no JSON schema, and for a name that is there twice."""
    seen: set[str] = set()
    for at, tool in enumerate(tools):
        if tool.function.name in seen:
            raise ApiError(f"There are two tools called {tool.function.name!r}.", param="tools")
        seen.add(tool.function.name)
        if tool.function.parameters is not None:
            check_schema(tool.function.parameters, f"tools.{at}.function.parameters")
