"""A collector that keeps what it is sent: the far end of the filter's record batches in tests and in the demo.

It accepts a POST of NDJSON on any path, appends the body to a file and keeps the parsed records. A batch is accepted
only when its answer is 2xx: a batch refused or reset by a fault is counted and not kept, as a collector that failed
before storing would, so a test can tell a retry from a duplicate. State is at `GET /_sink/records`.

Run alone: python3 tests/support/sink.py --port 10002 --file records.ndjson
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.http1 import Connection, Head, Server, response_head

Record = dict[str, Any]
GARBAGE = -1
STALL_LOOK_SECONDS = 0.05


@dataclass(slots=True, frozen=True)
class Batch:
    """One POST: `status` is what it was answered, 0 for a reset; `records` is the number of its lines."""

    path: str
    headers: list[tuple[str, str]]
    body: bytes
    status: int
    records: int


class Sink(Server):
    """The collector. Faults: `statuses` are answered first, one a batch; `resets` batches are cut off without an
    answer; every answer waits `delay_ms`, and while `stalled` there is none at all; `judge` decides on the body of every
    other batch, with a status or `GARBAGE`."""

    def __init__(self, port: int = 0, file: Path | None = None) -> None:
        super().__init__(port)
        self.file = file
        self.batches: list[Batch] = []
        self.records: list[Record] = []
        self.invalid: list[bytes] = []
        self.statuses: deque[int] = deque()
        self.resets = 0
        self.delay_ms = 0.0
        self.stalled = False
        self.judge: Callable[[bytes], int] = lambda _body: 202

    def wait_for(
        self, number: int, timeout: float = 10, where: Callable[[Record], bool] = lambda _record: True
    ) -> list[Record]:
        """The records that satisfy `where`, once there are at least `number`; else TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            found = [r for r in list(self.records) if where(r)]
            if len(found) >= number:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {number} records after {timeout} s, {len(self.batches)} batches")
            time.sleep(0.02)

    def clear(self) -> None:
        """Forget batches and records; the file stays."""
        self.batches.clear()
        self.records.clear()
        self.invalid.clear()

    async def exchange(self, conn: Connection, head: Head) -> bool:
        body = (await conn.read_body(head)).data
        if head.method == "GET" or head.path.startswith("/_sink/"):
            if head.method == "DELETE":
                self.clear()
            await conn.send_json(200, list(self.records))
            return True
        lines = [line for line in body.split(b"\n") if line.strip()]
        if self.delay_ms:
            await asyncio.sleep(self.delay_ms / 1000)
        while self.stalled:
            await asyncio.sleep(STALL_LOOK_SECONDS)
        status = self.statuses.popleft() if self.statuses else self.judge(body)
        if self.resets > 0:
            self.resets -= 1
            status = 0
        self.batches.append(Batch(head.target, head.headers, body, status, len(lines)))
        if status == 0:
            conn.reset()
            return False
        if status == GARBAGE:
            await conn.send(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            return False
        if 200 <= status < 300:
            self._accept(body, lines)
        location = [("location", "/elsewhere")] if 300 <= status < 400 else []
        await conn.send(response_head(status, [("content-length", "0"), *location]))
        return True

    def _accept(self, body: bytes, lines: list[bytes]) -> None:
        if self.file is not None:
            with self.file.open("ab") as out:
                out.write(body if body.endswith(b"\n") else body + b"\n")
        for line in lines:
            try:
                self.records.append(json.loads(line))
            except ValueError:
                self.invalid.append(line)


def main() -> int:
    """Collect until interrupted."""
    parser = argparse.ArgumentParser(description="record sink on 127.0.0.1")
    parser.add_argument("--port", type=int, default=10002)
    parser.add_argument("--file", type=Path, default=Path("records.ndjson"))
    options = parser.parse_args()
    with Sink(options.port, options.file) as sink:
        print(f"record sink on http://127.0.0.1:{sink.port}, appending to {options.file}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
