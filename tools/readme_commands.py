"""What README.md and docs/ tell people to type, as data. tests/envoy/test_docs.py checks and runs it, .ci/run takes the test
command from it, so that nothing is promised which nobody tried.

Only blocks fenced as ```sh are commands. A block may have a marker, an HTML comment on the line before its fence:

    <!-- sh: test -->             the test command; exactly one block, in README.md. .ci/run runs it
    <!-- sh: run -->              runs as it stands, from the project's root, within two minutes
    <!-- sh: skip: REASON -->     not run; for what needs another machine or stays in the foreground

A block without a marker may hold only `make TARGET` and `curl` lines.

`python3 tools/readme_commands.py test` prints the test command.
"""

import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARKER = re.compile(r"<!--\s*sh:\s*(?P<kind>\w+)\s*(?::\s*(?P<reason>.*?))?\s*-->")
KINDS = {"test", "run", "skip"}
README = ROOT / "README.md"


@dataclasses.dataclass(frozen=True)
class Block:
    """One ```sh block: its file and the line of its fence, its marker if any, and its text."""

    place: str
    kind: str | None
    reason: str | None
    text: str

    @property
    def commands(self) -> list[str]:
        """One string per command, continuation lines joined, comments and empty lines dropped."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


class DocumentError(Exception):
    """A document breaks the convention; says where and what to do."""


def documents() -> list[pathlib.Path]:
    """README.md and what it leaves to docs/."""
    return [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: pathlib.Path) -> list[Block]:
    """Every ```sh block of a document, in order."""
    return blocks_of(document.read_text(encoding="utf-8"), str(document.relative_to(ROOT)))


def blocks_of(markdown: str, name: str) -> list[Block]:
    """Every ```sh block of a text, in order; `name` is for messages."""
    found: list[Block] = []
    fence: tuple[str, bool, int, re.Match[str] | None] | None = None
    body: list[str] = []
    before = ""
    for number, line in enumerate(markdown.splitlines(), start=1):
        stripped = line.strip()
        if fence is None:
            opening = re.match(r"(`{3,}|~{3,})\s*(\S*)", stripped)
            if opening:
                fence = (opening[1], opening[2] == "sh", number, MARKER.fullmatch(before))
                if MARKER.fullmatch(before) and not fence[1]:
                    raise DocumentError(f"{name}:{number}: the marker above is for ```sh blocks")
                body = []
            elif MARKER.fullmatch(before):
                raise DocumentError(f"{name}:{number - 1}: a marker belongs on the line before a ```sh block")
            before = stripped
        elif stripped == fence[0]:
            _, is_sh, start, marker = fence
            if is_sh:
                kind, reason = (marker["kind"], marker["reason"]) if marker else (None, None)
                if kind is not None and kind not in KINDS:
                    raise DocumentError(f"{name}:{start - 1}: unknown marker '{kind}', expected {sorted(KINDS)}")
                if kind == "skip" and not reason:
                    raise DocumentError(f"{name}:{start - 1}: say why: <!-- sh: skip: REASON -->")
                found.append(Block(f"{name}:{start}", kind, reason, "\n".join(body) + "\n"))
            fence, before = None, ""
        else:
            body.append(line)
    if fence is not None:
        raise DocumentError(f"{name}:{fence[2]}: this block is never closed")
    return found


def test_command() -> str:
    """The text of README.md's one block marked `test`."""
    marked = [block for block in blocks(README) if block.kind == "test"]
    if len(marked) != 1:
        raise DocumentError(f"README.md: expected one block marked <!-- sh: test -->, found {len(marked)}")
    return marked[0].text


def main(arguments: list[str]) -> int:
    """Prints the test command."""
    if arguments != ["test"]:
        print("usage: readme_commands.py test", file=sys.stderr)
        return 2
    try:
        print(test_command(), end="")
    except (DocumentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
