#!/usr/bin/env bash
# Starts the OpenAI-compatible server on port 8000; needs nothing but Python 3.11 or newer.
# The first run installs SimServe into .venv beside this script. Options go to `simserve serve` (--help lists them).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$root/.venv"
stamp="$venv/.simserve-installed"
python="${PYTHON:-python3}"

fail() {
    echo "run_openai_server.sh: $1" >&2
    exit 2
}

# What the installation depends on; another stamp means that it is out of date.
wanted_stamp() {
    "$venv/bin/python" - "$root/pyproject.toml" "$root/constraints.txt" <<'PYTHON'
import hashlib, pathlib, sys

print(hashlib.sha256(b"".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:])).hexdigest())
PYTHON
}

if [[ ! -x "$venv/bin/python" ]] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or newer is needed; install it, or name one with PYTHON=/path/to/python3."
    "$python" -m venv "$venv" ||
        fail "could not create $venv; install your system's package for Python's venv module (python3-venv)."
fi

stamp_now="$(wanted_stamp)"
if [[ ! -x "$venv/bin/simserve" || "$(cat "$stamp" 2>/dev/null)" != "$stamp_now" ]]; then
    echo "Installing SimServe into $venv (once) ..." >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$root/constraints.txt" -e "$root" || fail "the installation failed; see above."
    echo "$stamp_now" >"$stamp"
fi

exec "$venv/bin/simserve" serve "$@"
