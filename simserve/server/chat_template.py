"""Chat messages as the prompt that a model was trained on: its own Jinja template, run in a sandbox.

Rendered as the ``transformers`` library does it, so that templates written for that one give the same prompt here:
the same sandbox, whitespace rules, filters and names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from simserve.errors import ModelError, RequestError

if TYPE_CHECKING:
    import jinja2

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


class ChatTemplate:
    """Turns messages into a prompt; ``tool_source`` is the template for requests with tools, if it is another one.

    Raises :class:`ModelError` for broken Jinja, with ``name`` in it.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], name: str, tool_source: str | None = None
    ) -> None:
        self._special_tokens = special_tokens
        self._template = _compiled(source, name)
        self._tool_template = self._template if tool_source is None else _compiled(tool_source, name)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for ``messages``, ending where the assistant is to speak.

        ``extras`` are further variables, such as a client's ``chat_template_kwargs``. Raises :class:`RequestError`
        with the template's own words if it refuses the messages.
        """
        import jinja2

        names = {**self._special_tokens, "add_generation_prompt": True, "documents": None, **(extras or {})}
        template = self._tool_template if tools else self._template
        try:
            return template.render({**names, "messages": messages, "tools": tools})
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise RequestError(f"the model's chat template refuses these messages: {error}") from None


def load_chat_template(folder: Path) -> ChatTemplate | None:
    """The template of the model in ``folder``, None where it has none; raises :class:`ModelError` if it is broken.

    ``chat_template.jinja`` goes before what tokenizer_config.json says, as in transformers. Of several named ones, the
    one called ``tool_use`` is for requests with tools.
    """
    config_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    config = _read_json(config_file) if config_file.is_file() else {}
    templates = _named(config.get("chat_template"))
    if template_file.is_file():
        templates = {"default": template_file.read_text(encoding="utf-8")}
    source = templates.get("default") or next(iter(templates.values()), None)
    if source is None:
        return None
    return ChatTemplate(source, _special_tokens(config), str(folder), templates.get("tool_use"))


def _named(templates: object) -> dict[str, str]:
    if isinstance(templates, str):
        return {"default": templates}
    if isinstance(templates, list):
        return {one["name"]: one["template"] for one in templates}
    return {}


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of special tokens; a config writes each as a text or as an object with its ``content``."""
    found = {name: config.get(name) for name in SPECIAL_TOKENS}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}); download it again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a JSON object; download it again")
    return content


def _compiled(source: str, name: str) -> jinja2.Template:
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_tag()]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(f"{name}: the chat template is broken in line {error.lineno} ({error.message})") from None


def _generation_tag() -> type[jinja2.ext.Extension]:
    """``{% generation %}`` marks, for training, what the assistant says; to a prompt it means nothing."""
    from jinja2 import nodes, parser
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: parser.Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Generation


def _to_json(value: object, indent: int | None = None, **options: Any) -> str:
    """Jinja's own filter escapes for HTML, which prompts are not."""
    return json.dumps(value, **{"ensure_ascii": False, "indent": indent, **options})


def _raise(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
