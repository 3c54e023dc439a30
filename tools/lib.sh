# Shared by the set-up scripts: where things are kept, how a step speaks, how a package is installed.
# Sourced, never run. Messages go to stderr, because stdout carries each script's answer (a path).

set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${TOLLGATE_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set TOLLGATE_CACHE to a directory}/.cache}/tollgate}"
# The oldest compiler; the same number is `rust-version` in Cargo.toml.
oldest_rust="$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)"

# say STEP TEXT: one line about what a step does.
say() { printf '==> %s: %s\n' "$1" "$2" >&2; }

# fail STEP WHAT HINT: what went wrong and what the reader does about it.
fail() {
    printf 'error: %s: %s\n' "$1" "$2" >&2
    printf '       to do: %s\n' "$3" >&2
    exit 1
}

# at_least HAVE WANT: compares dotted versions.
at_least() { [[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }

# quietly LOG COMMAND...: its output goes to LOG; on failure the end of LOG is shown.
quietly() {
    local log="$1"
    shift
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" | sed 's/^/    /' >&2
        printf '    (all of it: %s)\n' "$log" >&2
        return 1
    fi
}

# locked NAME: until this script ends, no other one holds NAME; two `make` at once don't install twice.
locked() {
    mkdir -p "$cache"
    exec {lock_fd}>"$cache/$1.lock"
    flock "$lock_fd"
}

# apt_ready STEP PACKAGE...: apt-get may be used (to install these) and its lists are fresh, or says what to do instead.
apt_ready() {
    local step="$1"
    shift
    [[ -z "${as_root+set}" ]] || return 0
    command -v apt-get >/dev/null || fail "$step" "this system has no apt-get" "install what Debian calls: $*"
    as_root=()
    if [[ "$(id -u)" != 0 ]]; then
        sudo -n true 2>/dev/null || fail "$step" "needs the system packages $*, and sudo asks for a password" \
            "as root: apt-get update && apt-get install $*"
        as_root=(sudo -n)
    fi
    # An old list only matters if the install fails, so this is not an error.
    quietly "$cache/log/apt-update.log" "${as_root[@]}" apt-get update -qq ||
        say "$step" "the package lists could not be refreshed; going on with the old ones"
}

# apt_install STEP PACKAGE...: installs system packages, or says how to. Removes none.
apt_install() {
    local step="$1"
    shift
    apt_ready "$step" "$@"
    say "$step" "installing the system packages $*"
    quietly "$cache/log/apt-install.log" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends --no-remove "$@" ||
        fail "$step" "apt-get could not install $*" "as root: apt-get update && apt-get install $*"
}

# apt_download STEP PACKAGE COMMAND...: COMMAND downloads what PACKAGE takes, once more with fresh lists where it fails; false
# where that is no use either.
apt_download() {
    local step="$1" package="$2"
    shift 2
    quietly "$cache/log/$step-apt.log" "$@" && return
    # The lists are old, or have never been there; only root may get new ones.
    (apt_ready "$step" "$package") && quietly "$cache/log/$step-apt.log" "$@"
}

# need_python STEP: a python3 whose venv module works.
need_python() {
    command -v python3 >/dev/null || apt_install "$1" python3 python3-venv
    # Debian ships `venv` without `ensurepip` until python3-venv is there.
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install "$1" python3-venv
    python3 -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$1" "$(command -v python3) cannot make virtual environments" \
            "put a python3 with the modules venv and ensurepip first on PATH"
}

# venv STEP DIR PIP-ARGUMENTS...: a virtual environment, complete or made anew.
venv() {
    local step="$1" dir="$2"
    shift 2
    # A venv points at the python it was made with; an upgrade of that python breaks it.
    if [[ -e "$dir/complete" ]] && "$dir/bin/python" -c '' 2>/dev/null; then return; fi
    need_python "$step"
    rm -rf "$dir"
    quietly "$cache/log/$step-venv.log" python3 -m venv "$dir" ||
        fail "$step" "python3 -m venv failed" "read the lines above; is there space in $cache?"
    quietly "$cache/log/$step-pip.log" "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
        fail "$step" "pip could not install $*" "check the network or pip's own settings, then run the same command again"
    touch "$dir/complete"
}
