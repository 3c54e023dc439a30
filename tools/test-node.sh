#!/usr/bin/env bash
# Runs the core's unit tests compiled to wasm32 under Node: what differs there (32-bit usize, no threads) is where the
# filter runs. Without feature `filter`, whose host functions only Envoy has.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

cd "$root"
runner="$(tools/wasm-test-runner.sh)"
output="$(mktemp)"
trap 'rm -f "$output"' EXIT
CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$runner" tools/wasm-cargo.sh test --lib "$@" 2>&1 | tee "$output"
# The runner is content with a binary that has no tests.
grep -qE '^test result: ok\. [1-9]' "$output" ||
    fail test-node "no test ran" "tests for both targets need #[wasm_bindgen_test], see src/lib.rs"
