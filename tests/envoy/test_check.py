"""`tollgate check` and Envoy agree: what one takes the other takes, and what one refuses the other refuses in the same
words. Numbers are the point: Envoy's YAML reader, its JSON reader and the Struct between have their own ideas of them.
"""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import envoy_config
from support.stack import find_envoy

COMMAND = envoy_config.ROOT / "dist" / "tollgate"
PLACE = "the configuration stands here"


def rate(written: str) -> str:
    return f"{{prices: {{models: [{{model: m, rates: {{input: {written}}}}}]}}}}"


# The filter's configuration as it is written in Envoy's YAML, and whether it is taken.
YAML: dict[str, bool] = {
    "{}": True,
    "{version: 1.0}": True,
    "{version: '1'}": True,
    "{version: 2}": False,
    "{verzion: 1}": False,
    "{prices: null}": True,
    "{prices: []}": False,
    rate("2.50"): True,
    rate("'2.50'"): True,
    rate("1e-3"): True,
    rate(".5"): False,
    rate("-1"): False,
    rate("0x10"): True,
    rate("yes"): False,
    rate("0.30000000000000004"): True,
    rate("0.1234567890123456789012"): False,
    "{attribution: {max_value_bytes: 64.5}}": False,
    "{attribution: {forward_headers: 'true'}}": False,
    "{attribution: {forward_headers: yes}}": True,
    "{collector: {path: no-slash}}": False,
    "{metering: &m {hash_key: k}, workload: {write_words: [put]}}": True,
}

# The same as text in a StringValue.
TEXT: dict[str, bool] = {
    "": True,
    '{"version": 1, "version": 1}': False,
    "{version: 1}": False,
    '{"prices": {"models": [{"model": "m", "rates": {"input": 0.1234567890123456789}}]}}': True,
    "[]": False,
}

# The same as a Struct in Envoy's JSON.
JSON: dict[str, bool] = {
    '{"prices": {"models": [{"model": "m", "rates": {"input": 2.50}}]}}': True,
    '{"prices": {"models": [{"model": "m", "rates": {"input": 0.30000000000000004}}]}}': False,
    '{"prices": {"models": [{"model": "m", "rates": {"input": "0.30000000000000004"}}]}}': True,
    '{"attribution": {"max_value_bytes": 64.5}}': False,
}


def bootstrap(kind: str, written: str) -> str:
    """The shipped bootstrap with this configuration, as text of a YAML or JSON file."""
    shipped = envoy_config.load()
    if kind == "text":
        envoy_config.set_filter_config_text(shipped, written)
        return json.dumps(shipped)
    envoy_config.plugin(shipped)["configuration"] = {"@type": envoy_config.STRUCT, "value": PLACE}
    # The text goes in as it is written: a dump would write its numbers in another way.
    return json.dumps(shipped).replace(json.dumps(PLACE), written)


def run(command: list[Any]) -> tuple[int, str]:
    done = subprocess.run(command, cwd=envoy_config.ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


CASES = [(kind, *case) for kind, cases in (("yaml", YAML), ("text", TEXT), ("json", JSON)) for case in cases.items()]


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, int, str]]:
    """What Envoy says of every case; each compiles the module, so two at a time."""
    assert COMMAND.exists(), f"{COMMAND} is missing: run `make command`"
    folder = tmp_path_factory.mktemp("check")

    def validate(case: tuple[int, tuple[str, str, bool]]) -> tuple[tuple[str, str], tuple[Path, int, str]]:
        number, (kind, written, _) = case
        path = folder / f"{number}.{'yaml' if kind == 'yaml' else 'json'}"
        path.write_text(bootstrap(kind, written), encoding="utf-8")
        return (kind, written), (path, *run([find_envoy(), "--mode", "validate", "-c", path, "--log-level", "error"]))

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(validate, enumerate(CASES)))


@pytest.mark.parametrize(("kind", "written", "taken"), CASES)
def test_check_and_envoy_agree(
    validated: dict[tuple[str, str], tuple[Path, int, str]], kind: str, written: str, taken: bool
) -> None:
    path, envoys, log = validated[kind, written]
    code, output = run([COMMAND, "check", "--format", "json", path])
    findings = json.loads(output)
    assert (envoys == 0, code == 0) == (taken, taken), f"Envoy: {envoys}\n{log}\ncheck: {code}\n{output}"
    errors = [finding for finding in findings if finding["severity"] == "error"]
    assert bool(errors) != taken
    for error in errors:
        # A mistake in the text as a whole has no path.
        said = f"{error['path']}: {error['message']}" if error["path"] else error["message"]
        assert said in log, f"{said} not in\n{log}"
