"""A server in a process of its own, as programs meet it; what the clients need is in the environment of the tests.

LangChain, LlamaIndex, LiteLLM and frameworks for agents want other versions of what SimServe's own tests use, so they
have an environment of their own: ``scripts/test_clients.sh`` makes it and runs what is here. Elsewhere their tests are
skipped.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = "facebook/opt-125m"


def python_with_simserve() -> str:
    """This interpreter, or the one of ``.venv`` where this one has no SimServe."""
    if importlib.util.find_spec("aiohttp") and importlib.util.find_spec("simpy"):
        return sys.executable
    return os.environ.get("SIMSERVE_PYTHON", str(ROOT / ".venv/bin/python"))


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The base URL of the API."""
    options = ["--host", "127.0.0.1", "--port", "0", "--model", MODEL, "--time-scale", "50"]
    command = [python_with_simserve(), "-m", "simserve", "serve", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        said = []
        try:
            for line in server.stdout:
                said.append(line)
                if "Listening on http" in line:
                    break
            else:
                raise AssertionError("".join(said))
            # Somebody has to read on: a server whose log nobody takes stands still.
            threading.Thread(target=server.stdout.read, daemon=True).start()
            yield line.split("Listening on ")[1].split()[0] + "/v1"
        finally:
            server.terminate()
