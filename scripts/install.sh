#!/usr/bin/env bash
# Installs SimServe from this clone into .venv, with the versions that were tested; does nothing if that was done before.
# Usage: scripts/install.sh [run|dev]   ("dev" adds what the tests and linters need)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-run}
python=${PYTHON:-python3}
venv=.venv
stamp=$venv/.installed-$kind
# What an installation depends on; the folder too, because a venv does not survive a move.
wanted="$(pwd) $(cat pyproject.toml constraints.txt scripts/install.sh | cksum)"

fail() {
    echo "SimServe cannot be installed: $1" >&2
    exit 2
}

is_installed() {
    [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.installed-$1" 2>/dev/null)" = "$wanted" ]
}

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or newer is needed and '$python' is not; name one with PYTHON=/path/to/python3."
    "$python" -m venv "$@" "$venv" ||
        fail "'$python -m venv' failed; install your system's package for it (python3-venv on Debian and Ubuntu)."
}

moved() {
    local stamps
    stamps=$(cat "$venv"/.installed-* 2>/dev/null) || return 1
    case $stamps in "$(pwd) "*) return 1 ;; esac
}

case $kind in
    run) is_installed dev && exit 0; what="." ;;
    dev) what=".[dev]" ;;
    *) fail "there is no kind '$kind'; say run or dev." ;;
esac
is_installed "$kind" && exit 0

if moved; then
    make_venv --clear
elif ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    make_venv # there is none, or one without pip, which is what a failed attempt leaves behind
fi
echo "Installing SimServe and what it needs into $venv (a minute or two, once) ..." >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$what" ||
    fail "pip failed, see above."
echo "$wanted" >"$stamp"
