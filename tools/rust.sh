#!/usr/bin/env bash
# Checks that cargo is there, is new enough, can link, and has the components named as arguments (rustfmt, clippy).
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

command -v cargo >/dev/null && command -v rustc >/dev/null ||
    fail rust "cargo is not on PATH" "install Rust $oldest_rust or newer with rustup, then open a new shell"
have="$(rustc --version | cut -d ' ' -f 2)"
at_least "$have" "$oldest_rust" ||
    fail rust "rustc is $have, tollgate needs $oldest_rust" "rustup update stable"

# rustup does not bring the linker that build scripts and native binaries need.
command -v cc >/dev/null || apt_install rust gcc libc6-dev

for component in "$@"; do
    case "$component" in
        rustfmt) probe=(cargo fmt --version) ;;
        clippy) probe=(cargo clippy --version) ;;
        *) fail rust "unknown component $component" "this is a mistake in the script that called tools/rust.sh" ;;
    esac
    "${probe[@]}" >/dev/null 2>&1 && continue
    say rust "adding the component $component"
    if ! command -v rustup >/dev/null || ! quietly "$cache/log/rustup.log" rustup component add "$component"; then
        fail rust "the component $component is missing" "rustup component add $component"
    fi
done
