#!/usr/bin/env bash
# Finds or installs a Chromium for the tests of the dashboard; without one they are skipped, with the reason.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -n "${SIMSERVE_TEST_BROWSER:-}" ] && exit 0
for name in chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && exit 0
done
.venv/bin/python -m playwright install chromium --only-shell >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq >/dev/null 2>&1 || true
    for package in chromium-headless-shell chromium; do
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" >/dev/null 2>&1 && exit 0
    done
fi
echo "No Chromium could be installed: the tests of the dashboard in a browser will be skipped." >&2
