#!/usr/bin/env bash
# Runs every test: the Rust ones, then tests/e2e against the built binary with stock clients and servers.
# Installs what is missing (npm packages, a Python venv, Chromium, redis-server) and says what it could not install.
# Ends with `N passed, N failed`; the exit code is not 0 if anything failed.
#   tests/run.sh            everything
#   tests/run.sh rust       only cargo test
#   tests/run.sh e2e [FILE] only tests/e2e, or some of its files
# E2E_PROFILE=release builds the binary of the end-to-end tests optimised (default: debug, which cargo test has built anyway).
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
e2e=$root/tests/e2e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root" || exit 1

what=${1:-all}
shift || true

passed=0
failed=0
missing=()

say() { printf '\n== %s\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

finish() {
    for note in "${missing[@]+"${missing[@]}"}"; do echo "NOT RUN: $note"; done
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
}

give_up() {
    echo "tests/run.sh: $*" >&2
    failed=$((failed + 1))
    finish
}

# Two runs at once must not install into the same directory.
locked() {
    if command -v flock >/dev/null; then
        (
            flock 9
            "$@"
        ) 9>"$e2e/.install.lock"
    else
        "$@"
    fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get -qq update >/dev/null 2>&1
    as_root apt-get install -qq -y --no-install-recommends "$@" >"$work/apt.log" 2>&1
}

install_node() {
    local have
    have=$(sha256sum "$e2e/package-lock.json")
    [ "$(cat "$e2e/node_modules/.installed" 2>/dev/null)" = "$have" ] && return 0
    say "npm ci in tests/e2e"
    (cd "$e2e" && npm ci --no-audit --no-fund) || return 1
    echo "$have" >"$e2e/node_modules/.installed"
}

install_python() {
    local have
    have=$(sha256sum "$e2e/requirements.txt")
    [ "$(cat "$e2e/.venv/.installed" 2>/dev/null)" = "$have" ] && return 0
    say "a Python environment in tests/e2e/.venv"
    if ! python3 -m venv "$e2e/.venv" >"$work/venv.log" 2>&1; then
        rm -rf "$e2e/.venv"
        apt_install python3-venv
        python3 -m venv "$e2e/.venv" || return 1
    fi
    "$e2e/.venv/bin/pip" install --quiet --disable-pip-version-check -r "$e2e/requirements.txt" || return 1
    echo "$have" >"$e2e/.venv/.installed"
}

find_browser() {
    local name
    for name in "${CHROMIUM:-}" /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome; do
        [ -n "$name" ] && [ -x "$name" ] && { echo "$name"; return 0; }
    done
    return 1
}

install_browser() {
    find_browser >/dev/null && return 0
    say "Chromium by apt-get"
    apt_install chromium
    find_browser >/dev/null
}

install_redis() {
    command -v redis-server >/dev/null && return 0
    say "redis-server by apt-get"
    apt_install redis-server
    command -v redis-server >/dev/null
}

# Adds what `cargo test` counted in its log.
count_cargo() {
    local line
    while read -r line; do
        [[ $line =~ ([0-9]+)\ passed\;\ ([0-9]+)\ failed ]] || continue
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
    done < <(grep '^test result:' "$1")
}

rust() {
    command -v cargo >/dev/null || give_up "cargo is needed (https://rustup.rs) and is not in PATH"
    say "cargo test"
    # --no-fail-fast: one red test must not hide the next.
    cargo test --all-features --no-fail-fast 2>&1 | tee "$work/cargo.log"
    local status=${PIPESTATUS[0]} before=$failed
    count_cargo "$work/cargo.log"
    if [ "$status" != 0 ] && [ "$failed" = "$before" ]; then
        echo "cargo test did not run to its end" >&2
        failed=$((failed + 1))
    fi
}

binary() {
    [ -n "${SIOGATE_BIN:-}" ] && return 0
    local profile=${E2E_PROFILE:-debug} flags=() target
    [ "$profile" = release ] && flags=(--release)
    say "cargo build ($profile)"
    cargo build "${flags[@]+"${flags[@]}"}" || return 1
    target=$(cargo metadata --format-version 1 --no-deps | sed -E 's/.*"target_directory":"([^"]+)".*/\1/')
    # A copy: another run may rebuild while this one is testing.
    cp "$target/$profile/siogate" "$work/siogate" || return 1
    export SIOGATE_BIN=$work/siogate
}

# One of the totals that node --test prints.
counted() { sed -nE "s/^(ℹ|#) $1 ([0-9]+)$/\2/p" "$work/e2e.log" | tail -1; }

end_to_end() {
    command -v node >/dev/null || apt_install nodejs npm || give_up "Node 20 is needed for tests/e2e and could not be installed"
    [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || give_up "Node 20 or later is needed, found $(node --version)"
    command -v python3 >/dev/null || apt_install python3 python3-venv || give_up "python3 is needed for tests/e2e and could not be installed"
    local tool
    for tool in curl openssl; do
        command -v "$tool" >/dev/null || locked apt_install "$tool" || give_up "$tool is needed for tests/e2e and could not be installed"
    done
    locked install_node || give_up "npm ci failed"
    locked install_python || give_up "the Python packages could not be installed"
    if locked install_browser; then
        CHROMIUM=$(find_browser)
        export CHROMIUM
    else
        missing+=("the browser tests: Chromium could not be installed by apt-get")
        export E2E_NO_BROWSER=1
    fi
    if ! locked install_redis; then
        missing+=("the tests with Redis: redis-server could not be installed by apt-get")
        export E2E_NO_REDIS=1
    fi
    binary || give_up "cargo build failed"

    say "node --test in tests/e2e"
    local files=("$@")
    [ ${#files[@]} = 0 ] && files=("$e2e"/*.test.mjs)
    # One file at a time: several measure time. What stays open after the last test must not keep a run waiting.
    # The counts are read from what is printed: --test-force-exit cuts off a reporter that writes to a file.
    FORCE_COLOR=0 node --test --test-force-exit --test-concurrency=1 --test-reporter=spec "${files[@]}" 2>&1 | tee "$work/e2e.log"
    local status=${PIPESTATUS[0]} before=$failed pass fail cancelled
    pass=$(counted pass)
    fail=$(counted fail)
    cancelled=$(counted cancelled)
    passed=$((passed + ${pass:-0}))
    failed=$((failed + ${fail:-0} + ${cancelled:-0}))
    if [ "$status" != 0 ] && [ "$failed" = "$before" ]; then failed=$((failed + 1)); fi
    if [ "$status" = 0 ] && [ "${pass:-0}" = 0 ]; then give_up "no end-to-end test ran"; fi
}

case $what in
    all) rust; end_to_end ;;
    rust) rust ;;
    e2e) end_to_end "$@" ;;
    *) echo "usage: tests/run.sh [all|rust|e2e [FILE...]]" >&2; exit 2 ;;
esac
finish
