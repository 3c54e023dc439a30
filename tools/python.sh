#!/usr/bin/env bash
# Prints the path of a python with tests/requirements.txt installed, kept in the cache, one per set of requirements.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

requirements="$root/tests/requirements.txt"
key="$(sha256sum "$requirements" | cut -c 1-16)"
dir="$cache/python-$key"
locked python
[[ -e "$dir/complete" ]] || say python "installing the packages of tests/requirements.txt into $dir"
venv python "$dir" --requirement "$requirements"
echo "$dir/bin/python"
