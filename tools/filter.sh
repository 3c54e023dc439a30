#!/usr/bin/env bash
# Builds the module: `tools/filter.sh FEATURE OUTPUT`, for example `tools/filter.sh filter dist/tollgate.wasm`.
# cargo decides what is stale. OUTPUT is always newer than the sources afterwards: tests refuse a module that is not.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

feature="$1"
output="$2"
cd "$root"
# The two variants share a file name in cargo's target directory; apart, neither makes the other one stale.
export TOLLGATE_WASM_TARGET_DIR="$root/target/wasm"
[[ "$feature" == filter ]] || TOLLGATE_WASM_TARGET_DIR="$root/target/wasm-$feature"
module="$TOLLGATE_WASM_TARGET_DIR/wasm32-unknown-unknown/release/tollgate.wasm"

quiet=(--quiet)
[[ ! -t 2 ]] || quiet=()
[[ -e "$module" ]] || say filter "building with feature $feature; the first time takes a minute"
tools/wasm-cargo.sh build --release --lib --features "$feature" "${quiet[@]}"

mkdir -p "$(dirname "$output")"
if cmp -s "$module" "$output"; then
    touch "$output"
else
    # In one step: an Envoy that watches the file never sees half of it.
    cp "$module" "$output.new"
    mv "$output.new" "$output"
fi
bytes="$(stat -c %s "$output")"
printf '%s: %d bytes (%d KB)\n' "$output" "$bytes" "$(((bytes + 500) / 1000))"
