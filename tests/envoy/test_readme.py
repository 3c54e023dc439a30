"""README.md keeps its word: every command in it exists, and the quick ones run. tools/readme_commands.py has the convention.

`make test` is what runs this file and `make run` stays up, so of those two only the target is checked. The curl lines are
sent by the tests of the running stack.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import readme_commands  # noqa: E402

# Seconds each target may take here, where everything is set up and the module is built. The others are not run.
QUICK_TARGETS = {"help": 10, "setup": 60, "filter": 300, "demo": 60}
MARKED_RUN_SECONDS = 120


def readme() -> list[readme_commands.Block]:
    return readme_commands.blocks((ROOT / "README.md").read_text(encoding="utf-8"))


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def make_targets_of(command: str) -> list[str]:
    """The targets of `make [NAME=VALUE]... TARGET...`."""
    words = command.split("#")[0].split()[1:]
    return [word for word in words if "=" not in word and not word.startswith("-")]


def run(command: str, seconds: int) -> str:
    """Runs it as a reader would, and returns what it printed; it and all it started are gone afterwards."""
    # Variables of the `make` that runs this test are not for the reader's `make`.
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
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
