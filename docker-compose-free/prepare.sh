# What `demo` and `test` share: packages that are missing, and the clone's virtual environment. Sourced, not run.

clone=$(cd "$(dirname "$0")/.." && pwd)
venv=$clone/.venv
began=$(date +%s)

say() { printf '[%3ds] %s\n' $(($(date +%s) - began)) "$*" >&2; }
fail() { say "$*"; exit 1; }

# packages COMMAND=PACKAGE…: install the packages whose command is not there.
packages() {
    missing=
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}"
    done
    [ -n "$missing" ] || { say "packages: all there"; return 0; }
    [ "$(id -u)" = 0 ] || fail "not root, and these packages are missing: apt-get install$missing"
    command -v apt-get >/dev/null || fail "no apt-get here; install what corresponds to:$missing"
    say "packages: installing$missing (apt-get, some minutes on a fresh machine)"
    [ -n "${lists_updated:-}" ] || quietly apt-get update
    lists_updated=yes
    # One that this distribution lacks must not keep the others out.
    # shellcheck disable=SC2086
    install $missing || for package in $missing; do
        install "$package" || say "packages: cannot install $package (see above); what needs it will say so"
    done
}

install() {
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# quietly COMMAND…: its output only when it fails.
quietly() {
    log=$(mktemp)
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ $status = 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return $status
}

# environment EXTRA: the clone, installed in place with that extra (or none), in .venv; only when something changed.
environment() {
    command -v python3 >/dev/null || packages python3=python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Dayfly needs Python 3.11 or newer, but python3 is $(python3 -V)"
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages no-such-command=python3-venv
    wanted="$(python3 -V) $1 $(cksum <"$clone/pyproject.toml")"
    if [ "$(cat "$venv/dayfly-stamp" 2>/dev/null)" = "$wanted" ] && "$venv/bin/python" -c 'import dayfly' 2>/dev/null; then
        say "environment: $venv is up to date"
        return 0
    fi
    say "environment: installing Dayfly and what it needs into $venv (about half a minute)"
    rm -rf "$venv"
    quietly python3 -m venv "$venv" || fail "cannot make a virtual environment in $venv"
    quietly "$venv/bin/python" -m pip install --editable "$clone$1" || fail "pip could not install Dayfly, see above"
    printf '%s' "$wanted" >"$venv/dayfly-stamp"
}
