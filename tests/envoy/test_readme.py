"""README.md keeps its word: every command in it exists, and the quick ones run. tools/readme_commands.py has the convention.

`make test` is what runs this file and `make run` stays up, so of those two only the target is checked. The curl lines are
sent to the gateway that `make run` starts, on another port.
"""

import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
import yaml
from support import envoy_config
from support.stack import Stack, find_envoy

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import readme_commands  # noqa: E402

# Seconds each target may take here, where everything is set up and the module is built. The others are not run.
QUICK_TARGETS = {"help": 10, "setup": 60, "filter": 300, "demo": 60}
MARKED_RUN_SECONDS = 120
CURL_SECONDS = 20
# Where the README's gateway is, and the token of its admin endpoint.
GATEWAY = "http://127.0.0.1:10000"
TOKEN = "the token of these tests"


def readme() -> list[readme_commands.Block]:
    return readme_commands.blocks((ROOT / "README.md").read_text(encoding="utf-8"))


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def make_targets_of(command: str) -> list[str]:
    """The targets of `make [NAME=VALUE]... TARGET...`."""
    words = command.split("#")[0].split()[1:]
    return [word for word in words if "=" not in word and not word.startswith("-")]


def run(command: str, seconds: int, **variables: str) -> str:
    """Runs it as a reader would, and returns what it printed; it and all it started are gone afterwards."""
    # Variables of the `make` that runs this test are not for the reader's `make`.
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    env |= variables
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # As Ctrl-C would, so that an Envoy it started is stopped too.
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        pytest.fail(f"`{command}` took more than {seconds} s:\n{output}")
    assert process.returncode == 0, f"`{command}` exited with {process.returncode}:\n{output}"
    return output


def test_every_block_is_make_curl_or_marked() -> None:
    for block in readme():
        if block.kind in {"run", "skip"}:
            continue
        for command in block.commands:
            assert command.split()[0] in {"make", "curl"}, (
                f"README.md:{block.line}: `{command}` is not checked; mark its block, see tools/readme_commands.py"
            )


def test_every_make_target_exists() -> None:
    named = {target for block in readme() for command in block.commands if command.split()[0] == "make"
             for target in make_targets_of(command)}
    assert named, "README.md names no make target"
    assert named <= makefile_targets()


def test_help_lists_every_target() -> None:
    listed = set(re.findall(r"^make ([a-z-]+) ", run("make", 10), re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == phony


def test_the_test_command_is_marked_once() -> None:
    command = readme_commands.test_command((ROOT / "README.md").read_text(encoding="utf-8"))
    assert command.strip() == "make test"


@pytest.mark.parametrize("target", sorted(QUICK_TARGETS))
def test_quick_targets_run(target: str) -> None:
    output = run(f"make {target}", QUICK_TARGETS[target])
    assert output.strip(), f"`make {target}` printed nothing"


def test_blocks_marked_run_do_run() -> None:
    for block in readme():
        if block.kind == "run":
            run(block.text, MARKED_RUN_SECONDS)


def yaml_blocks() -> list[Any]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def test_envoy_takes_the_filter_that_is_shown(tmp_path: pathlib.Path) -> None:
    """In the shipped bootstrap in the place of its own, and of what is shown only the module's path is another."""
    ((shown,),) = [block for block in yaml_blocks() if isinstance(block, list)]
    shown["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"] = "dist/tollgate.wasm"
    bootstrap = envoy_config.load()
    filters = envoy_config.http_filters(bootstrap)
    filters[[own["name"] for own in filters].index("tollgate")] = shown
    envoy_config.write(tmp_path / "envoy.yaml", bootstrap)
    run(f"{find_envoy()} --mode validate -c {tmp_path}/envoy.yaml --log-level error", CURL_SECONDS)
    run(f"dist/tollgate check {tmp_path}/envoy.yaml", CURL_SECONDS)


def test_sections_of_the_configuration_that_are_shown_are_valid(tmp_path: pathlib.Path) -> None:
    sections = [block for block in yaml_blocks() if isinstance(block, dict)]
    assert [next(iter(section)) for section in sections] == ["attribution", "budgets"]
    for number, section in enumerate(sections):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(section), encoding="utf-8")
        run(f"dist/tollgate check {tmp_path}/{number}.yaml", CURL_SECONDS)


def open_admin(bootstrap: envoy_config.Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap)["admin"] = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}


def test_every_curl_line_gets_what_it_asks_for() -> None:
    commands = [command for block in readme() if block.kind is None for command in block.commands]
    lines = [command for command in commands if command.split()[0] == "curl"]
    with Stack(open_admin) as stack:
        for line in lines:
            assert GATEWAY in line, f"`{line}` goes elsewhere"
            # A status of 400 and more is a failure, whether the line says so or not.
            printed = run(line.replace(GATEWAY, stack.client.url) + " -sS --fail-with-body", CURL_SECONDS, TOKEN=TOKEN)
            assert printed.startswith("{"), f"`{line}` printed:\n{printed}"
        changes = stack.sink.wait_for(2, where=lambda record: record["type"] == "admin")
    assert [(change["action"], change["scope"]) for change in changes] == [
        ("grant", {"department": "research"}), ("reset", {"department": "research"}),
    ]


@pytest.mark.parametrize(
    ("markdown", "message"),
    [
        ("<!-- sh: skip -->\n```sh\nx\n```\n", "say why"),
        ("<!-- sh: maybe -->\n```sh\nx\n```\n", "unknown marker 'maybe'"),
        ("<!-- sh: run -->\n```yaml\nx\n```\n", "is for ```sh blocks"),
        ("<!-- sh: run -->\n\n```sh\nx\n```\n", "on the line before"),
        ("```sh\nx\n", "never closed"),
    ],
)
def test_a_readme_that_breaks_the_convention_is_refused(markdown: str, message: str) -> None:
    with pytest.raises(readme_commands.ReadmeError, match=re.escape(message)):
        readme_commands.blocks(markdown)


def test_commands_are_joined_and_comments_dropped() -> None:
    (block,) = readme_commands.blocks("text\n```sh\n# why\ncurl -s \\\n  http://x\n\nmake help  # list\n```\n")
    assert block.commands == ["curl -s http://x", "make help  # list"]
    assert make_targets_of(block.commands[1]) == ["help"]
