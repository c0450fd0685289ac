#!/usr/bin/env bash
# LangChain, LlamaIndex, LiteLLM and frameworks for agents against a server of this clone, in an environment of their
# own: they want other versions of openai and huggingface_hub than SimServe's tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv-clients
requirements=tests/clients/requirements.txt
wanted="$(pwd) $(cksum <"$requirements")"
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    "${PYTHON:-python3}" -m venv --clear "$venv"
    # Every version is stated, so there is nothing to resolve.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$requirements" || {
        echo "The clients could not be installed: they are not tested." >&2
        exit 0
    }
    echo "$wanted" >"$venv/.installed"
fi
SIMSERVE_PYTHON=${SIMSERVE_PYTHON:-.venv/bin/python} PYTHONPATH=. "$venv/bin/python" -m pytest -q -W ignore \
    -p no:cacheprovider tests/clients/test_langchain.py tests/clients/test_llama_index.py tests/clients/test_litellm.py \
    tests/clients/test_agents.py
