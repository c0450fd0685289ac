"""A model's own chat template gives the prompt that transformers would give, and refuses with its own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="chat templates need jinja2: pip install simserve[torch]")

from simserve.errors import ModelError, RequestError
from simserve.server.chat_template import ChatTemplate, load_chat_template

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": 'Say "ä<b>"'},
    {"role": "assistant", "content": "ä"},
    {"role": "user", "content": "And now?"},
]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]

TEMPLATES = {
    "marks around every turn": """
        {{- bos_token }}
        {%- for message in messages %}
            {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
        {%- endfor %}
        {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}""",
    "blocks whose lines vanish": """{% for message in messages %}
        {% if message.role == 'system' %}
SYSTEM {{ message.content }}
        {% elif loop.last %}
LAST {{ message.content }}{{ eos_token }}
        {% else %}
{{ message.content }}
            {% if loop.index > 2 %}{% continue %}{% endif %}
        {% endif %}
    {% endfor %}""",
    "tools as JSON": """{% if tools %}{{ tools | tojson }} {{ tools[0] | tojson(indent=4) }}{% endif %}
        {%- set ns = namespace(count=0) %}{% for m in messages %}{% set ns.count = ns.count + 1 %}{% endfor %}
        {{- ns.count }}{{ messages[1].content | tojson }}""",
    "what the assistant says, marked for training": """{% for m in messages %}
        {%- if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}
        {%- else %}{{ m.content }}{% endif %}{% endfor %}""",
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_it_renders_as_transformers_does(name: str, tools: list[dict[str, Any]] | None) -> None:
    reference = pytest.importorskip("transformers.utils.chat_template_utils", reason="the reference is transformers")
    (wanted,), _ = reference.render_jinja_template(
        [MESSAGES], tools=tools, chat_template=TEMPLATES[name], add_generation_prompt=True, **TOKENS
    )
    assert ChatTemplate(TEMPLATES[name], TOKENS, name).render(MESSAGES, tools, {}) == wanted


def test_extras_reach_the_template() -> None:
    template = ChatTemplate("{{ 'thinks' if enable_thinking else 'answers' }}", {}, "a model")
    assert template.render(MESSAGES, None, {"enable_thinking": True}) == "thinks"
    assert template.render(MESSAGES, None, {}) == "answers"


def test_a_template_refuses_with_its_own_words() -> None:
    template = ChatTemplate("{{ raise_exception('only two roles, please') }}", {}, "a model")
    with pytest.raises(RequestError, match="only two roles, please"):
        template.render(MESSAGES, None, {})


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    template = ChatTemplate("{{ messages.__class__.__mro__ }}", {}, "a model")
    with pytest.raises(RequestError, match="template refuses"):
        template.render(MESSAGES, None, {})


def test_a_broken_template_is_named_with_its_line() -> None:
    with pytest.raises(ModelError, match="a model: the chat template is broken in line 2"):
        ChatTemplate("fine\n{% if %}", {}, "a model")


class TestWhereItLies:
    def write(self, folder: Path, **config: Any) -> None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))

    def test_in_the_tokenizers_config(self, tmp_path: Path) -> None:
        eos = {"content": "<end>", "lstrip": False}
        self.write(tmp_path, chat_template="{{ bos_token }}{{ eos_token }}", bos_token="<begin>", eos_token=eos)
        assert load_chat_template(tmp_path).render(MESSAGES, None, {}) == "<begin><end>"

    def test_in_a_file_of_its_own_which_goes_first(self, tmp_path: Path) -> None:
        self.write(tmp_path, chat_template="not this")
        (tmp_path / "chat_template.jinja").write_text("this")
        assert load_chat_template(tmp_path).render(MESSAGES, None, {}) == "this"

    def test_as_one_of_several_with_one_for_tools(self, tmp_path: Path) -> None:
        named = [{"name": "tool_use", "template": "with tools"}, {"name": "default", "template": "without"}]
        self.write(tmp_path, chat_template=named)
        template = load_chat_template(tmp_path)
        assert template.render(MESSAGES, None, {}) == "without"
        assert template.render(MESSAGES, TOOLS, {}) == "with tools"

    def test_nowhere(self, tmp_path: Path) -> None:
        assert load_chat_template(tmp_path) is None
        self.write(tmp_path, bos_token="<s>")
        assert load_chat_template(tmp_path) is None

    @pytest.mark.parametrize("content", ["", "[1]"])
    def test_in_a_config_that_is_broken(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(ModelError, match="download it again"):
            load_chat_template(tmp_path)
