#!/usr/bin/env bash
# Starts the OpenAI-compatible server on port 8000; needs nothing but Python 3.11 or newer.
# The first run installs SimServe into .venv beside this script. Options go to `simserve serve` (--help lists them).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
"$root/scripts/install.sh" run
exec "$root/.venv/bin/python" -m simserve serve "$@"
