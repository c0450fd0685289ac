#!/usr/bin/env bash
# Installs SimServe from this clone into .venv, with the versions that were tested, unless that was done already.
# Usage: scripts/install.sh [run|dev]
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-run}
stamp=.venv/.installed-$kind
wanted=$(cat pyproject.toml constraints.txt | sha256sum)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    touch "$stamp" # so that make, which goes by dates, sees it as newer than what it was made from
    exit 0
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "SimServe needs Python 3.11 or newer; '$python' is not: set PYTHON to one that is." >&2
    exit 2
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv

echo "Installing SimServe and what it needs into .venv (a minute or two, once) ..." >&2
target="."
[ "$kind" = dev ] && target=".[dev]"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$target" 2>&1 \
    | { grep -v '^WARNING: Location' || true; }
echo "$wanted" > "$stamp"
