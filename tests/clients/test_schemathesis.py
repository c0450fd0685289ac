"""Bodies drawn from the OpenAPI document, good and broken: no answer is a 5xx.

``SIMSERVE_SCHEMATHESIS_CASES=2000`` for more of them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

CASES = int(os.environ.get("SIMSERVE_SCHEMATHESIS_CASES", "150"))
LEFT_OUT = ("/sleep", "/clock", "/dashboard/events", "/admin")
"""What holds the server up, or has it fail on purpose, while others use it."""


def test_no_answer_is_the_servers_fault(url: str) -> None:
    home = url.removesuffix("/v1")
    document = schemathesis.openapi.from_url(f"{home}/openapi.json")
    operations = [one.ok() for one in document.get_all_operations()]
    operations = [one for one in operations if not one.path.startswith(LEFT_OUT)]
    drawn = st.one_of([one.as_strategy(generation_mode=mode) for one in operations for mode in _modes(one)])
    seen: set[str] = set()

    @seed(1)
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def ask(case: Any) -> None:
        answer = case.call(base_url=home, timeout=300)
        seen.add(case.operation.path)
        assert answer.status_code < 500, (answer.status_code, answer.text, case.as_curl_command())

    ask()
    assert len(seen) > len(operations) / 2


def _modes(operation: Any) -> list[Any]:
    from schemathesis import GenerationMode

    return [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if operation.body else [GenerationMode.POSITIVE]
