#!/usr/bin/env bash
# Installs what the tests need beside Python, where this machine lets us; otherwise names the tests
# that will be skipped and why. It never fails: the tests report what they skip themselves.
set -uo pipefail

have() { command -v "$1" >/dev/null 2>&1; }

have_java() { "$(dirname "${BASH_SOURCE[0]}")/../deploy/toolchain.sh" java 2>/dev/null; }
have_postgres() { have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
have_compose() { have docker-compose || docker compose version >/dev/null 2>&1; }
have_prometheus() { have prometheus && have promtool; }
have_chromium() { have chromium || have chromium-browser || have google-chrome; }

# What is missing, as Debian's package names.
missing() {
    have_java || echo openjdk-17-jre-headless
    have_postgres || echo postgresql
    have_chromium || echo chromium
    have_prometheus || echo prometheus # the tests start one of their own
    have_compose || echo docker-compose # its `config` needs no engine
}

as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# One line of the reason why nothing can be installed, or nothing.
obstacle() {
    if ! have apt-get; then
        echo "there is no apt-get here"
    elif ! as_root true 2>/dev/null; then
        echo "this needs root or sudo without a password"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get "$@" </dev/null
}

install() {
    echo "==> installing Debian packages for the tests: $*"
    apt_install update -qq && apt_install install -y -qq --no-install-recommends "$@"
}

main() {
    local packages reason
    mapfile -t packages < <(missing)
    [[ ${#packages[@]} -eq 0 ]] && return
    reason=$(obstacle)
    [[ -n $reason ]] || install "${packages[@]}" || reason="apt-get failed"
    mapfile -t packages < <(missing)
    [[ ${#packages[@]} -eq 0 ]] ||
        echo "==> tests that need ${packages[*]} will be skipped or fail: ${reason:-still missing}"
}

main
exit 0
