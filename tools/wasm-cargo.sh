#!/usr/bin/env bash
# cargo for wasm32-unknown-unknown: `tools/wasm-cargo.sh build|clippy|test ARGUMENTS...`; `setup` only prepares.
#
# Two ways lead to that target:
#   path    the compiler on PATH has its standard library, if need be after `rustup target add`;
#   debian  else Debian's compiler, which comes with the standard library's sources, and cargo builds them (-Zbuild-std,
#           hence RUSTC_BOOTSTRAP). It exists for networks that reach package registries but not Rust's own download site.
# TOLLGATE_WASM=path or =debian forces one. That rustup failed is remembered in target/, so it is asked once per compiler.
#
# wasm builds have their own target directory: two compilers in one would rebuild each other's work.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

target=wasm32-unknown-unknown
command="${1:-setup}"
[[ $# -eq 0 ]] || shift
cd "$root"

path_has_target() {
    local dir
    dir="$(rustc --print target-libdir --target "$target" 2>/dev/null)" && compgen -G "$dir/libstd-*.rlib" >/dev/null
}

choose() {
    "$root/tools/rust.sh"
    case "${TOLLGATE_WASM:-auto}" in
        path | debian) way="$TOLLGATE_WASM" && return ;;
        auto) ;;
        *) fail wasm "TOLLGATE_WASM is '$TOLLGATE_WASM'" "set it to path, debian or auto" ;;
    esac
    way=path
    path_has_target && return
    local memory="$root/target/wasm-without-rustup" compiler
    compiler="$(rustc --version)"
    if [[ "$(cat "$memory" 2>/dev/null)" != "$compiler" ]]; then
        if command -v rustup >/dev/null; then
            say wasm "adding the target $target to the active rustup toolchain"
            # A site that can't be reached must not hold up the build: no retries, and not for ever.
            RUSTUP_MAX_RETRIES=0 timeout 300 rustup target add "$target" >/dev/null 2>&1 </dev/null || true
            path_has_target && return
            say wasm "rustup cannot download it; using Debian's compiler instead"
        else
            say wasm "the compiler on PATH lacks $target and there is no rustup; using Debian's compiler instead"
        fi
        mkdir -p "$root/target"
        printf '%s\n' "$compiler" >"$memory"
    fi
    way=debian
}

# Debian names the compiler its browsers are built with rustc-web; elsewhere the plain packages are the recent ones.
debian_packages() {
    case "$1" in
        web) echo rustc-web cargo-web rust-web-src ;;
        plain) echo rustc cargo rust-src ;;
    esac
}

debian_release() { /usr/bin/rustc --version 2>/dev/null | cut -d ' ' -f 2; }

debian_complete() {
    [[ -x /usr/bin/cargo && -x /usr/bin/rustc ]] && at_least "$(debian_release)" "$oldest_rust" &&
        [[ -e "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]]
}

# The package family of the compiler that is there, or of the first that is new enough.
debian_family() {
    local family rustc version
    if at_least "$(debian_release || true)" "$oldest_rust" && [[ -x /usr/bin/rustc ]]; then
        if dpkg -S /usr/bin/rustc 2>/dev/null | grep -q '^rustc-web:'; then echo web; else echo plain; fi
        return
    fi
    for family in web plain; do
        rustc="$(debian_packages "$family" | cut -d ' ' -f 1)"
        version="$(apt-cache policy "$rustc" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9.]*\).*/\1/p')"
        [[ -n "$version" ]] && at_least "$version" "$oldest_rust" && echo "$family" && return
    done
    # Not known to apt either; its error message then names the packages.
    echo web
}

use_debian() {
    if ! debian_complete; then
        command -v apt-get >/dev/null || fail wasm "the compiler on PATH has no standard library for $target" \
            "rustup target add $target"
        # shellcheck disable=SC2046 # a list of names
        apt_ready wasm $(debian_packages web)
        # shellcheck disable=SC2046 # a list of names
        apt_install wasm $(debian_packages "$(debian_family)")
        debian_complete || fail wasm "/usr/bin/rustc is $(debian_release) or its sources are missing; tollgate needs $oldest_rust" \
            "rustup target add $target"
    fi
    local linker
    linker="$(wasm_linker)" || {
        local llvm
        llvm="$(/usr/bin/rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')"
        apt_install wasm "lld-$llvm"
        linker="$(wasm_linker)" || fail wasm "no linker for $target" "install the package lld, or put wasm-ld on PATH"
    }
    # `cargo` and `rustc` on PATH may be rustup's proxies, and so may the subcommands in CARGO_HOME/bin.
    unset RUSTUP_TOOLCHAIN RUSTC_WORKSPACE_WRAPPER
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO=/usr/bin/cargo RUSTC_BOOTSTRAP=1
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
    cargo=(/usr/bin/cargo)
    build_std=(-Zbuild-std=std,panic_abort)
}

# rust-lld of the toolchain on PATH, of any toolchain, or a wasm-ld.
wasm_linker() {
    local linker
    for linker in "$(rustc --print sysroot 2>/dev/null)"/lib/rustlib/*/bin/rust-lld /usr/lib/rustlib/*/bin/rust-lld \
        "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/*/lib/rustlib/*/bin/rust-lld \
        "$(command -v wasm-ld || true)" /usr/bin/wasm-ld-* /usr/lib/llvm-*/bin/wasm-ld; do
        [[ -x "$linker" ]] && "$linker" -flavor wasm --version >/dev/null 2>&1 && echo "$linker" && return
        [[ -x "$linker" && "${linker##*/}" == wasm-ld* ]] && echo "$linker" && return
    done
    return 1
}

locked wasm
choose
cargo=(cargo)
build_std=()
[[ "$way" != debian ]] || use_debian
[[ "$command" != setup ]] || exit 0

if [[ "$command" == clippy && "$way" == debian ]]; then
    if [[ ! -x /usr/bin/cargo-clippy ]]; then
        case "$(debian_family)" in
            web) apt_install wasm rust-web-clippy ;;
            plain) apt_install wasm rust-clippy ;;
        esac
    fi
    # `/usr/bin/cargo clippy` would prefer rustup's cargo-clippy in CARGO_HOME/bin.
    cargo=(/usr/bin/cargo-clippy)
fi
if [[ "$command" == test && "$way" == debian ]]; then build_std=(-Zbuild-std=std,panic_abort,test); fi

export CARGO_TARGET_DIR="${TOLLGATE_WASM_TARGET_DIR:-$root/target/wasm}"
# Panic messages name source files; the module should not tell where it was built, and be the same wherever it was.
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="--remap-path-prefix=$cargo_home/registry/src=/deps --remap-path-prefix=$root=/tollgate"
# cargo has its own lock on the target directory.
exec {lock_fd}>&-
exec "${cargo[@]}" "$command" --target "$target" "${build_std[@]}" "$@"
