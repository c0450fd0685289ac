"""Answers that satisfy a grammar or a structural tag; what cannot be read is refused, and says where."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lark import Lark

from server.conftest import Client
from server.serving import FAST, serving
from simserve.server.answers.grammars import GrammarError, read_grammar, read_structural_tag
from simserve.server.answers.too_large import TooLarge

SQL = """
root ::= "SELECT " column " from " table " where " condition
column ::= "col_1 " | "col_2 "
table ::= "table_1 " | "table_2 "
condition ::= column "= " number   # two numbers are enough
number ::= "1 " | "2 "
"""
IS_SQL = re.compile(r"SELECT col_[12]  from table_[12]  where col_[12] = [12] ")

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws ( string ":" ws value
    ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

SUMS = r"""
?start: sum
?sum: product | sum "+" product -> add | sum "-" product -> sub
?product: atom | product "*" atom | product "/" atom
?atom: NUMBER | "-" atom | NAME | "(" sum ")"
%import common.CNAME -> NAME
%import common.NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
"""

TOOL = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OLDER_TAG = {
    "structures": [{"begin": "<function=weather>", "schema": TOOL, "end": "</function>"}],
    "triggers": ["<function="],
}
CALL = re.compile(r"[\w ]+\.\n<function=weather>(\{.*\})</function>")
TAG = {"begin": "<call>", "content": {"type": "json_schema", "json_schema": TOOL}, "end": ["</call>", "</end>"]}
FORMAT = {
    "type": "sequence",
    "elements": [
        {"type": "const_string", "value": "Well: "},
        {"type": "or", "elements": [{"type": "regex", "pattern": "[a-c]{3}"}, {"type": "grammar", "grammar": SQL}]},
        {"type": "triggered_tags", "triggers": ["<call"], "tags": [TAG], "at_least_one": True},
    ],
}


@given(st.text())
def test_a_text_satisfies_its_grammar_and_depends_on_the_key_alone(key: str) -> None:
    grammar = read_grammar(SQL)
    text = grammar.text(key, "", "grammar")
    assert IS_SQL.fullmatch(text)
    assert text == grammar.text(key, "", "grammar")


@given(st.integers())
def test_recursive_rules_come_to_an_end(key: int) -> None:
    json.loads(read_grammar(JSON).text(str(key), "", "grammar"))


def test_larks_notation_is_read_too_with_space_where_it_is_ignored() -> None:
    obvious = Lark(SUMS)
    for key in range(20):
        obvious.parse(read_grammar(SUMS).text(str(key), "", "grammar"))


def test_all_choices_are_made_by_one_key_or_another() -> None:
    texts = {
        read_grammar('root ::= "a"{2,3} [^b-z\\]A-Z0-9 -~]? | "\\u00e9\\n"').text(str(key), "", "") for key in range(50)
    }
    assert {"aa", "aaa", "é\n"} <= texts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("root ::= x", "there is no rule `x`"),
        ('top ::= "a"', "there is no rule `root`"),
        ('root ::= "a" root', "never comes to an end"),
        ('root ::= "a"\nother ::= ("b"', "line 2"),
        ('root ::= "a" (= "b")', "line 1, column 15"),
        ("root ::= [z-a]", "no range"),
        (r'root ::= "\q"', "escape"),
        (r"root ::= [\ud800]", "no character"),
        ('root ::= "a"{3,2}', "number of times"),
        ('root ::= "a"{99999}', "number of times"),
        ('root ::= "a"\nroot ::= "b"', "twice"),
        ("a poem", "neither EBNF"),
        ("start: x", "Lark cannot read it"),
        ("%import .secrets.X\nstart: X", "only `common`"),
        ("start: /[/", "unterminated character set"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "too deeply"),
        ("root ::= " + '"a" ' * 20_000, "more than"),
    ],
)
def test_what_cannot_be_read_is_refused_and_says_why(text: str, why: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(why)):
        read_grammar(text)


@pytest.mark.parametrize(
    "text",
    [
        "root ::= a{9}\na ::= b{9}\nb ::= c{9}\nc ::= d{9}\nd ::= e{9}\ne ::= [a]",
        "root ::= r0\n" + "\n".join(f'r{at} ::= "a" r{at + 1}' for at in range(2000)) + '\nr2000 ::= "b"',
        'root ::= "a"{10000}{10000}',
    ],
)
def test_a_grammar_of_huge_texts_is_too_large(text: str) -> None:
    with pytest.raises((TooLarge, GrammarError)):
        read_grammar(text).text("key", "", "grammar")


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("[]", "an object"),
        ("{", "not JSON"),
        ({}, "give `format`"),
        ({"format": {"type": "poem"}}, "'poem' is not known"),
        ({"format": {"type": "or", "elements": []}}, "`elements`"),
        ({"format": {"type": "const_string"}}, "`value`"),
        ({"format": {"type": "regex", "pattern": "("}}, "cannot be read"),
        ({"format": {"type": "triggered_tags", "triggers": ["<"], "tags": "x"}}, "`tags`"),
        (OLDER_TAG | {"triggers": ["<tool"]}, "no trigger"),
        (OLDER_TAG | {"structures": []}, "`structures`"),
    ],
)
def test_structural_tags_that_are_none_are_refused(tag: Any, why: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(why)):
        read_structural_tag(tag, "structural_tag")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(FAST) as client:
        yield client


async def said(client: Client, **fields: Any) -> str:
    async with client.chat(**fields) as response:
        body = await response.json()
        assert response.status == 200, body
        assert body["choices"][0]["finish_reason"] == "stop"
        return str(body["choices"][0]["message"]["content"])


async def test_chats_honour_both_names_of_a_grammar(client: Client) -> None:
    assert IS_SQL.fullmatch(await said(client, structured_outputs={"grammar": SQL}))
    assert IS_SQL.fullmatch(await said(client, guided_grammar=SQL))


async def test_chats_honour_structural_tags_of_both_kinds(client: Client) -> None:
    for fields in (
        {"structured_outputs": {"structural_tag": json.dumps(OLDER_TAG)}},
        {"response_format": {"type": "structural_tag", **OLDER_TAG}},
    ):
        called = CALL.fullmatch(await said(client, **fields))
        assert called
        assert json.loads(called[1]).keys() == {"city"}
    text = await said(client, response_format={"type": "structural_tag", "format": FORMAT})
    assert re.fullmatch(rf"Well: (?:[a-c]{{3}}|{IS_SQL.pattern})<call>\{{.*\}}</(?:call|end)>", text)


async def test_a_limit_cuts_a_grammar_off(client: Client) -> None:
    async with client.chat(structured_outputs={"grammar": SQL}, max_tokens=2) as response:
        choice = (await response.json())["choices"][0]
    assert choice["finish_reason"] == "length"
    assert "SELECT col_1  from".startswith(choice["message"]["content"][:6])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {"grammar": "root ::= ("}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"response_format": {"type": "structural_tag", "format": {"type": "x"}}}, "response_format"),
        ({"guided_grammar": 'root ::= "a" root'}, "structured_outputs.grammar"),
    ],
)
async def test_a_broken_one_is_400_and_names_the_field(client: Client, fields: dict[str, Any], param: str) -> None:
    async with client.chat(**fields) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param
