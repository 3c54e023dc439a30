#!/usr/bin/env bash
# Prints the path of a `clickhouse-server`: the one on PATH, else Debian's in the cache, unpacked together
# with the libraries that this system does not have, and not installed: no service starts, and nobody need be root.
# Exits with 3 where there is neither: what needs it is skipped then.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# without WHAT: the tests that need it are not run, and why.
without() {
    say clickhouse "$1; the tests of a ClickHouse server are skipped (put clickhouse-server on PATH)"
    exit 3
}

if tool="$(command -v clickhouse-server)"; then echo "$tool" && exit; fi

locked clickhouse
dir="$cache/clickhouse"
if [[ ! -e "$dir/complete" ]]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || without "no clickhouse-server on PATH, and this is no Debian"
    say clickhouse "unpacking Debian's package clickhouse-server into $dir"
    rm -rf "$dir"
    mkdir -p "$dir"
    download() {
        local packages
        packages="$(apt-get --simulate install --no-install-recommends clickhouse-server | awk '/^Inst/ {print $2}')"
        [[ -n "$packages" ]] && cd "$dir" && xargs apt-get download <<<"$packages"
    }
    apt_download clickhouse clickhouse-server download || without "apt-get cannot download it"
    for package in "$dir"/*.deb; do dpkg -x "$package" "$dir" && rm "$package"; done
    libraries="$(echo "$dir"/lib/*-linux-gnu):$(echo "$dir"/usr/lib/*-linux-gnu)"
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$libraries" "$dir/usr/sbin/clickhouse-server" >"$dir/clickhouse-server"
    chmod +x "$dir/clickhouse-server"
    # It knows no option that would only show whether it runs.
    LD_LIBRARY_PATH="$libraries" ldd "$dir/usr/sbin/clickhouse-server" >"$cache/log/clickhouse-ldd.log" 2>&1 &&
        ! grep -q 'not found' "$cache/log/clickhouse-ldd.log" || without "Debian's clickhouse-server does not run here"
    touch "$dir/complete"
fi
echo "$dir/clickhouse-server"
