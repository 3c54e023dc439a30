#!/usr/bin/env bash
# Prints the path of wasm-bindgen-test-runner, which runs a wasm32 test binary under Node. It must be of exactly the
# version of wasm-bindgen in Cargo.lock, so there is one per version in the cache.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

version="$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p}' "$root/Cargo.lock")"
[[ -n "$version" ]] || fail wasm-test-runner "Cargo.lock names no wasm-bindgen" "cargo update --package wasm-bindgen-test"
dir="$cache/wasm-bindgen-$version"
runner="$dir/bin/wasm-bindgen-test-runner"

locked wasm-bindgen
command -v node >/dev/null || apt_install node nodejs
if ! "$runner" --version >/dev/null 2>&1; then
    "$root/tools/rust.sh"
    say wasm-test-runner "building wasm-bindgen-cli $version into $dir; takes a minute or two, once"
    # Neither the project's settings nor its target directory are of use here. Built for speed of building.
    build() {
        cd "$cache" && env -u RUSTFLAGS -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET \
            CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
            cargo install wasm-bindgen-cli --version "$version" --bin wasm-bindgen-test-runner --root "$dir" --force
    }
    quietly "$cache/log/wasm-bindgen.log" build ||
        fail wasm-test-runner "cargo install wasm-bindgen-cli --version $version failed" "read the lines above, then run it again"
fi
echo "$runner"
