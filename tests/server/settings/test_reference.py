"""The page, the example and the tests know every key that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.serving import settings
from simserve.server.models import available_models
from simserve.server.settings.reference import every_key, settings_reference

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / "examples/config.yaml").read_text()
AT_ODDS = ("models_dir", "device", "threads", "dataset", "file", "replicas", "router", "router_staleness")
"""Keys that cannot be together with others that the example shows."""


def test_the_page_has_just_the_keys_that_there_are() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    assert page.split("a test compares -->\n\n")[1] == settings_reference() + "\n", (
        "docs/configuration.md is out of date: replace what follows the marker by what "
        "`python -m simserve.server.settings.reference` prints"
    )


def test_the_example_is_valid_and_its_models_can_be_served() -> None:
    chosen = settings(EXAMPLE)
    assert [model.name for model in available_models(chosen)] == ["llama-8b", "qwen-32b", "opt"]


def test_the_example_is_valid_with_all_that_is_commented_out() -> None:
    lines = [re.sub(r"^( *)# (?=( *- |[a-z_]+:|  ))", r"\1", line) for line in EXAMPLE.splitlines()]
    text = "\n".join(line for line in lines if not re.match(f" *({'|'.join(AT_ODDS)}):", line))
    text = text.replace("secret_key: ...", "secret_key: " + "x" * 32)
    chosen = settings(text)
    assert chosen.auth.keys[1].permissions == ["chat", "models"]
    assert chosen.failures.seed == 1
    assert chosen.logging.retention is not None


def test_the_example_says_the_defaults_where_it_does_not_say_otherwise() -> None:
    chosen, default = settings(EXAMPLE), settings("{}")
    assert chosen.server == default.server
    assert chosen.auth == default.auth
    assert chosen.logging == default.logging
    assert chosen.failures.model_dump() == default.failures.model_dump()


@pytest.mark.parametrize("key", every_key())
def test_every_key_is_in_the_example(key: str) -> None:
    assert re.search(rf"^[ #-]*{key.rsplit('.', 1)[1]}:", EXAMPLE, re.MULTILINE)
