"""docs/api.md knows every endpoint and every field that there is, and no other."""

from __future__ import annotations

from pathlib import Path

from simserve.server.api_docs.endpoints import BODIES, endpoints_of
from simserve.server.api_docs.notes import NOTES
from simserve.server.api_docs.reference import api_reference, own_app

PAGE = Path(__file__).parents[3] / "docs/api.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text().split("a test compares -->\n\n")[1] == api_reference(endpoints_of(own_app())) + "\n", (
        "docs/api.md is out of date: replace what follows the marker by what "
        "`python -m simserve.server.api_docs.reference` prints"
    )


def test_every_field_has_a_note_and_every_note_a_field() -> None:
    fields = {field.alias or name for body in BODIES.values() for name, field in body.model_fields.items()}
    assert set(NOTES) == fields


def test_every_body_belongs_to_an_endpoint() -> None:
    posted = {one.path for one in endpoints_of(own_app()) if one.method == "POST"}
    assert set(BODIES) <= posted
