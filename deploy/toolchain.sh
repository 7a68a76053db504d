#!/usr/bin/env bash
# Makes and fills the virtual environment; called by the Makefile, useful alone too.
#
#   deploy/toolchain.sh install LOCK   make .venv if need be, then install LOCK, the packages
#                                      without dependencies, and noctule itself
#   deploy/toolchain.sh java           fail with one line unless Java 17 or newer is there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
OLDEST_PYTHON="3.11"
OLDEST_JAVA=17

say() { printf '==> %s\n' "$*"; }
fail() { printf 'noctule: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# A pyenv shim answers `command -v` and then fails, so each candidate is run. ensurepip is what
# Debian leaves out of python3 when python3-venv is not installed.
is_usable_python() {
    "$1" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (${OLDEST_PYTHON/./, }))" \
        >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do
        if is_usable_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python $OLDEST_PYTHON or newer with its venv module is on PATH; install one" \
        "(Debian: apt-get install python3 python3-venv; macOS: brew install python@3.12)" \
        "or name it: make setup PYTHON=/path/to/python3"
}

make_venv() {
    [[ -x $VENV/bin/python ]] && return
    if have uv; then
        say "making $VENV with uv"
        uv venv --quiet --clear --python "${PYTHON:->=$OLDEST_PYTHON}" "$VENV"
        return
    fi
    local python
    python=$(find_python)
    say "making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
}

pip_install() {
    if have uv; then
        uv pip install --python "$VENV/bin/python" "$@"
    else
        "$VENV/bin/python" -m pip install --disable-pip-version-check "$@"
    fi
}

install() {
    local lock=$1
    make_venv
    say "installing $lock (the first time: some 700 MB, a few minutes)"
    pip_install --require-hashes -r "$lock"
    pip_install --require-hashes --no-deps -r requirements/nodeps.txt
    say "installing noctule itself"
    pip_install --no-deps --no-build-isolation -e .
}

find_java() {
    if [[ -n ${JAVA_HOME:-} ]]; then
        echo "$JAVA_HOME/bin/java"
    else
        echo java
    fi
}

check_java() {
    local version
    version=$("$(find_java)" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p') || true
    [[ ${version:-0} -ge $OLDEST_JAVA ]] && return
    fail "Java $OLDEST_JAVA or newer is needed, found ${version:-none}; install it" \
        "(Debian: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17)"
}

case ${1:-} in
    install) install "${2:?which lock file?}" ;;
    java) check_java ;;
    *) fail "usage: deploy/toolchain.sh install LOCK | java" ;;
esac
