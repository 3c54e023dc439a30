#!/usr/bin/env bash
# Prints the path of a python with chdb, which is ClickHouse in a process, kept in the cache. It is half a gigabyte, and a
# gigabyte with the pandas and pyarrow that it asks for and no query here needs.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

releases=(chdb==4.4.0 chdb-core==26.9.0)
dir="$cache/${releases[0]/==/-}"
locked chdb
[[ -e "$dir/complete" ]] || say chdb "installing the Python packages ${releases[*]} into $dir"
venv chdb "$dir" --no-deps "${releases[@]}"
echo "$dir/bin/python"
