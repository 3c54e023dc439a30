#!/usr/bin/env bash
# Prints the path of a folder with `prometheus` and `promtool`: that of the `promtool` on PATH if `prometheus` is beside it,
# else one in the cache with those of Debian's package, unpacked and not installed, so that no service starts.
# Exits with 3 where there is neither: what needs them is skipped then.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# without WHAT: the tests that need it are not run, and why.
without() {
    say prometheus "$1; the tests of rules and dashboards are skipped (put prometheus and promtool 2.42 or later on PATH)"
    exit 3
}

if tool="$(command -v promtool)" && [[ -x "$(dirname "$tool")/prometheus" ]]; then dirname "$tool" && exit; fi

locked prometheus
dir="$cache/prometheus"
if [[ ! -e "$dir/complete" ]]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || without "no promtool on PATH, and this is no Debian"
    say prometheus "unpacking Debian's package prometheus into $dir"
    rm -rf "$dir"
    mkdir -p "$dir"
    download() { cd "$dir" && apt-get download prometheus; }
    apt_download prometheus prometheus download || without "apt-get cannot download it"
    dpkg -x "$dir"/prometheus_*.deb "$dir" && rm "$dir"/prometheus_*.deb
    "$dir/usr/bin/promtool" --version >/dev/null 2>&1 || without "Debian's promtool does not run here"
    touch "$dir/complete"
fi
echo "$dir/usr/bin"
