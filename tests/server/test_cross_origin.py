"""Pages of other sites: a browser asks beforehand, without a key, and reads only what names the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from server.serving import FAST, serving

HERE, ELSEWHERE = "http://chat.example", "http://elsewhere.example"
KEYS = "auth: {keys: [sk-x]}\n"
BEFORE = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}


def told(headers: Mapping[str, str]) -> str | None:
    """The page that may read it."""
    return headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    ("origins", "page", "may_read"),
    [(HERE, HERE, HERE), (HERE, ELSEWHERE, None), ("'*'", ELSEWHERE, "*"), ("", HERE, None)],
)
async def test_pages_that_may_and_others(origins: str, page: str, may_read: str | None) -> None:
    async with serving(f"{FAST}{KEYS}server: {{allowed_origins: [{origins}]}}", {"Origin": page}) as client:
        async with client.session.options("/v1/chat/completions", headers=BEFORE) as before:
            assert (before.status == 204) is (may_read is not None)
            assert told(before.headers) == may_read
            if may_read:
                assert before.headers["Access-Control-Allow-Headers"] == BEFORE["Access-Control-Request-Headers"]
        key = {"Authorization": "Bearer sk-x"}
        chat: Any = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        for fields, headers, status in (({}, key, 200), ({"stream": True}, key, 200), ({}, {}, 401)):
            async with client.session.post("/v1/chat/completions", json=chat | fields, headers=headers) as answer:
                assert (answer.status, told(answer.headers)) == (status, may_read)


async def test_what_is_for_administrators_is_for_no_other_page() -> None:
    async with serving(f"{FAST}server: {{allowed_origins: ['*']}}", {"Origin": HERE}) as client:
        for path in ("/admin/models", "/trace"):
            async with client.session.get(path) as answer:
                assert (answer.status, told(answer.headers)) == (200, None)
        async with client.session.options("/admin/config", headers=BEFORE) as before:
            assert (before.status, told(before.headers)) == (405, None)
