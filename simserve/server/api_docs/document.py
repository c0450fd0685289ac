"""The OpenAPI document, made from the application's routes and the models that check their bodies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from simserve import __version__
from simserve.server.api_docs.endpoints import STREAMED, Endpoint, endpoints_of

Json = dict[str, Any]

TEXTS = ("/metrics", "/docs", "/dashboard", "/trace", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""Paths that do not answer in JSON."""

ERROR: Json = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}


def openapi_document(app: web.Application) -> Json:
    """The document of all that ``app`` answers."""
    endpoints = list(endpoints_of(app))
    bodies = sorted({one.body for one in endpoints if one.body is not None}, key=lambda body: body.__name__)
    references, definitions = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    schema_of = {body: references[body, "validation"] for body in bodies}
    paths: Json = {}
    for one in endpoints:
        operation = _operation(one, schema_of[one.body] if one.body else None)
        paths.setdefault(one.path, {})[one.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SimServe",
            "version": __version__,
            "description": "OpenAI's API, and vLLM's, with the timing of a chosen model on chosen hardware.",
        },
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(one: Endpoint, schema: Json | None) -> Json:
    operation: Json = {
        "operationId": f"{one.method.lower()}{one.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "summary": one.says,
        "tags": [_tag(one.path)],
        "responses": {
            "200": {"description": "The answer", "content": _answer(one)},
            "default": {
                "description": "What went wrong",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if one.parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in one.parameters
        ]
    if schema is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _answer(one: Endpoint) -> Json:
    if one.path.startswith(TEXTS) or one.path in ("/health", "/ping"):
        return {}
    answers: Json = {"application/json": {"schema": {"type": "object"}}}
    if one.path in STREAMED and one.method == "POST":
        answers["text/event-stream"] = {"schema": {"type": "string"}}
    return answers


def _tag(path: str) -> str:
    first = path.split("/")[1]
    return "models" if first in ("v1", "v2", "score", "rerank", "tokenize", "detokenize") else "server"


def names(endpoints: Iterable[Endpoint]) -> list[str]:
    """Method and path of each."""
    return [f"{one.method} {one.path}" for one in endpoints]
