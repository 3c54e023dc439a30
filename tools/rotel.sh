#!/usr/bin/env bash
# Prints the path of `rotel-agent`, a small OpenTelemetry collector, kept in the cache: it decodes what the filter sends as
# OTLP and prints what it understood. A Python package brings it; no other collector comes as a package of any kind.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

release=rotel==0.0.1a15
dir="$cache/${release/==/-}"
locked rotel
[[ -e "$dir/complete" ]] || say rotel "installing the Python package $release into $dir"
venv rotel "$dir" --no-deps "$release"
find "$dir"/lib -name rotel-agent -type f | head -n 1
