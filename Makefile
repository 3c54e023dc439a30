# Every target installs what it needs first, into target/, dist/ or the cache (TOLLGATE_CACHE, else ~/.cache/tollgate).
# tools/ has the steps; this file only says which belong together.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.SILENT:
.ONESHELL:
# The steps share cargo's locks and two cores; side by side they only wait for each other.
.NOTPARALLEL:

ENVOYS = envoy="$$(tools/envoy.sh)"; oldest="$$(tools/envoy.sh oldest)"; python="$$(tools/python.sh)"

.PHONY: help
help: ## list the targets
	awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## install everything the other targets need, once
	tools/rust.sh rustfmt clippy
	tools/wasm-cargo.sh setup
	$(ENVOYS)
	runner="$$(tools/wasm-test-runner.sh)"; node="$$(tools/node.sh)"; chdb="$$(tools/chdb.sh)"; rotel="$$(tools/rotel.sh)"
	prometheus="$$(tools/prometheus.sh)" || test $$? = 3
	clickhouse="$$(tools/clickhouse.sh)" || test $$? = 3
	litellm="$$(tools/price_sources.sh litellm)"; genai="$$(tools/price_sources.sh genai-prices)"
	echo "set up: $$python, $$envoy, $$oldest, $$runner, $$node, $$chdb, $$rotel, $$prometheus, $$clickhouse, $$litellm, $$genai"

.PHONY: filter
filter: ## build the filter: dist/tollgate.wasm
	tools/filter.sh filter dist/tollgate.wasm

.PHONY: filter-test
filter-test: ## build it with traps on demand, for tests: dist/tollgate-test.wasm
	tools/filter.sh test-trap dist/tollgate-test.wasm

.PHONY: command
command: ## build the command: dist/tollgate
	tools/rust.sh
	mkdir -p dist
	# The module's whole-program optimisation would take minutes here and bring nothing.
	cargo build --quiet --package tollgate-report --profile command --config 'profile.command.inherits="release"' \
		--config profile.command.lto=false --config profile.command.codegen-units=16
	cp target/command/tollgate dist/tollgate.new
	mv dist/tollgate.new dist/tollgate
	echo "dist/tollgate: $$(dist/tollgate --version)"

.PHONY: prices
prices: command ## import examples/prices anew from LiteLLM's table
	source="$$(tools/price_sources.sh litellm)"
	version="$$(basename "$$source" .json)"
	mkdir -p target/prices
	for list in examples/prices/models/*.txt; do
		provider="$$(basename "$$list" .txt)"
		arguments="--provider $$provider --models-file $$list --version $$version"
		{
			echo "# $$provider: list prices in USD from LiteLLM's table (MIT licence), taken over on $$(date -u +%F), by"
			echo "#   tollgate prices import litellm $$version.json $$arguments"
			dist/tollgate prices import litellm "$$source" $$arguments --report "target/prices/$$provider.json"
		} >"target/prices/$$provider.yaml"
		mv "target/prices/$$provider.yaml" "examples/prices/$$provider.yaml"
	done
	echo "examples/prices: $$(ls examples/prices/*.yaml | wc -l) tables; what they leave out is in target/prices/*.json"

.PHONY: demo
demo: filter ## send calls through a real Envoy and print what they cost
	envoy="$$(tools/envoy.sh)"; python="$$(tools/python.sh)"
	TOLLGATE_ENVOY="$$envoy" exec "$$python" envoy/demo.py

.PHONY: run
run: filter ## the demo's Envoy, left up on 127.0.0.1:10000 until Ctrl-C
	envoy="$$(tools/envoy.sh)"; python="$$(tools/python.sh)"
	TOLLGATE_ENVOY="$$envoy" exec "$$python" envoy/demo.py --run

.PHONY: test
test: test-rust test-node test-envoy ## all tests

.PHONY: test-rust
test-rust: filter filter-test ## unit, golden and property tests, and the compiled module in-process
	tools/rust.sh
	for source in litellm genai-prices; do
		tools/price_sources.sh "$$source" >/dev/null ||
			echo "==> without it, the tests of the import of the whole table of $$source are skipped" >&2
	done
	# The same cases each time: new ones are looked for by `make properties`, not by whoever changes something else.
	PROPTEST_RNG_SEED="$${PROPTEST_RNG_SEED:-1}" cargo test --workspace

.PHONY: properties
properties: filter filter-test ## all Rust tests with new random cases, ROUNDS times (20)
	tools/rust.sh
	for ((round = 1; round <= $${ROUNDS:-20}; round++)); do
		echo "==> round $$round"
		PROPTEST_RNG_SEED="$$RANDOM$$RANDOM" cargo test --quiet --workspace
	done

.PHONY: test-node
test-node: ## the core's unit tests on wasm32 under Node
	tools/test-node.sh

.PHONY: test-envoy
test-envoy: filter filter-test command ## end to end on the newest and the oldest supported Envoy
	$(ENVOYS)
	# The tests ask for the paths themselves; here it says what it installs, or skips.
	tools/node.sh >/dev/null
	tools/chdb.sh >/dev/null
	tools/rotel.sh >/dev/null
	tools/prometheus.sh >/dev/null || test $$? = 3
	tools/clickhouse.sh >/dev/null || test $$? = 3
	TOLLGATE_ENVOY="$$envoy" TOLLGATE_ENVOY_OLDEST="$$oldest" "$$python" -m pytest -q tests/envoy

.PHONY: bench
bench: filter ## what the filter costs: CPU, start-up and memory of Envoy with it and without
	tools/rust.sh
	envoy="$$(tools/envoy.sh)"; python="$$(tools/python.sh)"
	# The first build takes a minute or two: everything is optimised as in a release.
	cargo bench --quiet --no-run --bench reply
	TOLLGATE_ENVOY="$$envoy" exec "$$python" tests/bench/bench.py

.PHONY: check
check: ## formatting, lints for native and wasm32, documentation; warnings are errors
	tools/rust.sh rustfmt clippy
	echo "==> cargo fmt --check"
	cargo fmt --all --check
	echo "==> cargo clippy"
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	echo "==> cargo clippy for wasm32"
	tools/wasm-cargo.sh clippy --quiet --lib --features filter -- -D warnings
	tools/wasm-cargo.sh clippy --quiet --lib --features test-trap -- -D warnings
	echo "==> cargo doc"
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --workspace

.PHONY: clean
clean: ## remove target/ and dist/ (the cache stays)
	rm -rf target dist
