"""``/openapi.json``, and ``/docs``, which shows it with Swagger UI from this package: no network is needed."""

from __future__ import annotations

from pathlib import Path

import orjson
from aiohttp import web

from simserve.server.api_docs.document import openapi_document

STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".png": "image/png"}

PAGE_HEADERS = {
    # The browser itself sees to it that the page talks to nobody but this server. Swagger UI sets styles in its code.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


class ApiDocs:
    """The routes; the document is made when it is first asked for."""

    def __init__(self) -> None:
        self._document: bytes | None = None

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.get("/openapi.json", self.document),
            web.get("/docs", self.page),
            web.get(r"/docs/{name:[\w-]+\.(?:css|js|png)}", self.file),
        ]

    async def document(self, request: web.Request) -> web.Response:
        """``GET /openapi.json``: the OpenAPI document of this server"""
        if self._document is None:
            self._document = orjson.dumps(openapi_document(request.app))
        return web.Response(body=self._document, content_type="application/json")

    async def page(self, request: web.Request) -> web.Response:
        """``GET /docs``: that document, to read and to try out"""
        return _file("index.html")

    async def file(self, request: web.Request) -> web.Response:
        """``GET /docs/{name}``: a script, a style or a picture of the page"""
        return _file(request.match_info["name"])


def _file(name: str) -> web.Response:
    path = STATIC / name
    if not path.is_file():
        raise web.HTTPNotFound
    headers = {**PAGE_HEADERS, "Content-Type": f"{CONTENT_TYPES[path.suffix]}; charset=utf-8"}
    return web.Response(body=path.read_bytes(), headers=headers)
