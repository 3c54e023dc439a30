"""README.md and docs/ keep their word: every command in them exists, the quick ones run, what they show is valid, and every
link leads somewhere. tools/readme_commands.py has the convention for commands.

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
# The section of a bootstrap that is shown; every other section is the filter's.
BOOTSTRAP = "dynamic_resources"
# Where the gateway of the examples is, and the token of its admin endpoint.
GATEWAY = "http://127.0.0.1:10000"
TOKEN = "the token of these tests"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def command_blocks() -> list[readme_commands.Block]:
    return [block for document in readme_commands.documents() for block in readme_commands.blocks(document)]


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
    for block in command_blocks():
        if block.kind in {"run", "skip"}:
            continue
        for command in block.commands:
            assert command.split()[0] in {"make", "curl"}, (
                f"{block.place}: `{command}` is not checked; mark its block, see tools/readme_commands.py"
            )


def test_every_make_target_exists() -> None:
    named = {target for block in command_blocks() for command in block.commands if command.split()[0] == "make"
             for target in make_targets_of(command)}
    assert named, "no make target is named"
    assert named <= makefile_targets()


def test_help_lists_every_target() -> None:
    listed = set(re.findall(r"^make ([a-z-]+) ", run("make", 10), re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == phony


def test_the_test_command_is_marked_once() -> None:
    assert readme_commands.test_command().strip() == "make test"
    assert [block.kind for block in command_blocks()].count("test") == 1


@pytest.mark.parametrize("target", sorted(QUICK_TARGETS))
def test_quick_targets_run(target: str) -> None:
    output = run(f"make {target}", QUICK_TARGETS[target])
    assert output.strip(), f"`make {target}` printed nothing"


def test_blocks_marked_run_do_run() -> None:
    for block in command_blocks():
        if block.kind == "run":
            run(block.text, MARKED_RUN_SECONDS)


def yaml_blocks(document: pathlib.Path) -> list[Any]:
    text = document.read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def test_envoy_takes_the_filter_that_is_shown(tmp_path: pathlib.Path) -> None:
    """In the shipped bootstrap in the place of its own, and of what is shown only the module's path is another."""
    ((shown,),) = [block for block in yaml_blocks(readme_commands.README) if isinstance(block, list)]
    shown["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"] = "dist/tollgate.wasm"
    bootstrap = envoy_config.load()
    filters = envoy_config.http_filters(bootstrap)
    filters[[own["name"] for own in filters].index("tollgate")] = shown
    envoy_config.write(tmp_path / "envoy.yaml", bootstrap)
    run(f"{find_envoy()} --mode validate -c {tmp_path}/envoy.yaml --log-level error", CURL_SECONDS)
    run(f"dist/tollgate check {tmp_path}/envoy.yaml", CURL_SECONDS)


def test_sections_of_the_configuration_that_are_shown_are_valid(tmp_path: pathlib.Path) -> None:
    shown = {
        document.name: [block for block in yaml_blocks(document) if isinstance(block, dict) and BOOTSTRAP not in block]
        for document in readme_commands.documents()
    }
    assert [next(iter(section)) for section in shown["README.md"]] == ["attribution", "prices", "budgets"]
    assert "downgrades" in shown["budgets.md"][0]
    for name, sections in shown.items():
        for number, section in enumerate(sections):
            path = tmp_path / f"{name}-{number}.yaml"
            path.write_text(yaml.safe_dump(section), encoding="utf-8")
            run(f"dist/tollgate check {path}", CURL_SECONDS)


def test_envoy_takes_the_bootstrap_that_is_shown_for_listeners_from_a_file(tmp_path: pathlib.Path) -> None:
    blocks = [block for document in readme_commands.documents() for block in yaml_blocks(document)]
    (shown,) = [block for block in blocks if isinstance(block, dict) and BOOTSTRAP in block]
    bootstrap = envoy_config.load()
    envoy_config.write_dynamic(tmp_path, envoy_config.make_dynamic(bootstrap, tmp_path), "1")
    source = shown[BOOTSTRAP]["lds_config"]["path_config_source"]
    assert list(source) == ["path"]
    source["path"] = str(tmp_path / "lds.yaml")
    envoy_config.write(tmp_path / "envoy.yaml", bootstrap | shown)
    run(f"{find_envoy()} --mode validate -c {tmp_path}/envoy.yaml --log-level error", CURL_SECONDS)


def open_admin(bootstrap: envoy_config.Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap)["admin"] = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}


def test_every_curl_line_gets_what_it_asks_for() -> None:
    commands = [command for block in command_blocks() if block.kind is None for command in block.commands]
    lines = [command for command in commands if command.split()[0] == "curl"]
    with Stack(open_admin) as stack:
        for line in lines:
            assert GATEWAY in line, f"`{line}` goes elsewhere"
            # A status of 400 and more is a failure, whether the line says so or not.
            printed = run(line.replace(GATEWAY, stack.client.url) + " -sS --fail-with-body", CURL_SECONDS, TOKEN=TOKEN)
            assert printed.startswith("{"), f"`{line}` printed:\n{printed}"
        # Two workers answer, and each sends its own records.
        changes = sorted(stack.sink.wait_for(2, where=lambda record: record["type"] == "admin"), key=lambda r: r["ts"])
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
def test_a_document_that_breaks_the_convention_is_refused(markdown: str, message: str) -> None:
    with pytest.raises(readme_commands.DocumentError, match=re.escape(message)):
        readme_commands.blocks_of(markdown, "README.md")


def test_commands_are_joined_and_comments_dropped() -> None:
    text = "text\n```sh\n# why\ncurl -s \\\n  http://x\n\nmake help  # list\n```\n"
    (block,) = readme_commands.blocks_of(text, "README.md")
    assert block.commands == ["curl -s http://x", "make help  # list"]
    assert make_targets_of(block.commands[1]) == ["help"]


def markdown_files() -> list[pathlib.Path]:
    patterns = ["*.md", "docs/**/*.md", "envoy/**/*.md", "examples/**/*.md", "fuzz/*.md"]
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern)})


def without_code(markdown: str) -> str:
    """The text without fenced blocks and code spans, which have no links and no headings."""
    return re.sub(r"`[^`\n]*`", "", FENCED.sub("", markdown))


def anchors(markdown: str) -> set[str]:
    """What GitHub makes of each heading; of the second one alike, with `-1`."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", FENCED.sub("", markdown), re.MULTILINE):
        found.append(re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-"))
    before = [found[:number].count(name) for number, name in enumerate(found)]
    return {f"{name}-{times}" if times else name for name, times in zip(found, before, strict=True)}


def dead_link(target: str, page: pathlib.Path) -> str | None:
    """What is wrong with a link of `page`; pages of others are not looked at."""
    if re.match(r"[a-z]+:", target):
        return None
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    if not path.resolve().is_relative_to(ROOT) or not path.exists():
        return f"{target}: there is no such file"
    if anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
        return f"{target}: it has no such heading"
    return None


def test_every_link_leads_to_a_file_and_a_heading_that_are_there() -> None:
    links = [(page, target) for page in markdown_files()
             for target in re.findall(r"\]\(([^()\s]+)\)", without_code(page.read_text(encoding="utf-8")))]
    assert len(links) > 50, "the links are gone"
    dead = [f"{page.relative_to(ROOT)}: {wrong}" for page, target in links if (wrong := dead_link(target, page))]
    assert not dead, "\n".join(dead)


def test_the_readme_leads_to_every_page_of_docs() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", readme_commands.README.read_text(encoding="utf-8")))
    assert linked == {str(page.relative_to(ROOT)) for page in readme_commands.documents()[1:]}


def test_pages_that_sources_speak_of_are_there() -> None:
    patterns = ["CONTRIBUTING.md", "src/**/*.rs", "report/**/*.rs", "tests/*.rs", "envoy/*.*"]
    texts = [path.read_text(encoding="utf-8") for pattern in patterns for path in ROOT.glob(pattern)]
    named = {name for text in texts for name in re.findall(r"(?<![\w/.-])docs/[\w-]+\.md", text)}
    missing = {name for name in named if not (ROOT / name).exists()}
    assert named and not missing, missing


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("docs/records.md#delivery", None),
        ("#limits", None),
        ("https://example.org/nowhere#at-all", None),
        ("docs/nothing.md", "docs/nothing.md: there is no such file"),
        ("../elsewhere.md", "../elsewhere.md: there is no such file"),
        ("#reports-of-tomorrow", "#reports-of-tomorrow: it has no such heading"),
        ("docs/records.md#limits", "docs/records.md#limits: it has no such heading"),
    ],
)
def test_a_dead_link_is_found(target: str, wrong: str | None) -> None:
    assert dead_link(target, readme_commands.README) == wrong


def test_anchors_are_those_of_github() -> None:
    text = "# The `tollgate` command\n## prices import, prices diff\n```sh\n# no heading\n```\n## x\n## x\n"
    assert anchors(text) == {"the-tollgate-command", "prices-import-prices-diff", "x", "x-1"}
