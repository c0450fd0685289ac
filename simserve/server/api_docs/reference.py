"""The tables of ``docs/api.md``: made from routes and models, so that they cannot say otherwise.

``python -m simserve.server.api_docs.reference`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from pydantic import BaseModel

from simserve.server.api_docs.endpoints import Endpoint, endpoints_of
from simserve.server.api_docs.notes import BOTH, NOTES
from simserve.server.app import build_app
from simserve.server.models import pool_of
from simserve.server.settings import Settings
from simserve.server.unsupported import BY_NO_ENGINE


def own_app() -> web.Application:
    """An application as any server has it; it is not started."""
    settings = Settings()
    return build_app(pool_of(settings), settings)


def api_reference(endpoints: Iterable[Endpoint]) -> str:
    """All endpoints in a table, and a table of fields for each kind of body."""
    endpoints = list(endpoints)
    rows = [f"| `{one.method} {one.path}` | {one.says} | {one.permission} |" for one in endpoints]
    bodies: dict[type[BaseModel], list[str]] = {}
    for one in endpoints:
        if one.body is not None:
            bodies.setdefault(one.body, []).append(one.path)
    tables = [_table(body, paths) for body, paths in bodies.items()]
    refused = ", ".join(f"`{name}`" for name in sorted(BY_NO_ENGINE))
    head = ["## Endpoints", "", "| endpoint | what it is for | permission |", "|---|---|---|", *rows]
    tail = f"## Refused\n\nNo engine can honour these, and says so with 400: {refused}."
    return "\n\n".join(["\n".join(head), "## Fields", *tables, tail])


def _table(body: type[BaseModel], paths: list[str]) -> str:
    rows = [_row(field.alias or name, required=field.is_required()) for name, field in body.model_fields.items()]
    title = "### " + ", ".join(f"`{path}`" for path in paths)
    return "\n".join([title, "", "| field | simulated engine | torch engine |", "|---|---|---|", *rows])


def _row(name: str, *, required: bool) -> str:
    simulated, torch = NOTES.get(name, ("", ""))
    mark = " (required)" if required else ""
    return f"| `{name}`{mark} | {simulated} | {'the same' if torch == BOTH else torch} |"


if __name__ == "__main__":
    print(api_reference(endpoints_of(own_app())))
