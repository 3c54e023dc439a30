"""ClickHouse for tests: an old server as Debian packages it, and today's, which comes only as a library in Python.

Both speak ClickHouse's HTTP interface on loopback: the server by itself, the library through the few lines at the end
of this file, which another Python than the tests' runs (tools/chdb.sh has it).
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "examples" / "sinks" / "clickhouse" / "schema.sql"
START_SECONDS = 30.0

SERVER_XML = """<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>127.0.0.1</listen_host><http_port>{port}</http_port>
  <path>{directory}/data/</path><tmp_path>{directory}/tmp/</tmp_path>
  <mark_cache_size>5368709</mark_cache_size><timezone>UTC</timezone>
  <users><default><password></password><networks><ip>127.0.0.1</ip></networks>
    <profile>default</profile><quota>default</quota></default>
    <tollgate><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
    <profile>default</profile><quota>default</quota></tollgate></users>
  <profiles><default></default></profiles><quotas><default></default></quotas>
  <default_profile>default</default_profile><default_database>default</default_database>
</yandex>
"""


def statements(schema: str) -> list[str]:
    """The statements of a file of SQL, without its comments."""
    text = "\n".join(line.partition("--")[0] for line in schema.splitlines())
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def of_2018(schema: str) -> str:
    """The same tables for ClickHouse 18.16, as far as it knows their types: no maps, no lists, whole seconds, no window
    of blocks. What is left has the columns that are summed and the key that makes a record one row."""
    schema = "\n".join(line.partition("--")[0] for line in schema.splitlines())
    schema = re.sub(r"\n    \w+ (Map|Array)\((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*\),", "", schema)
    schema = re.sub(r"\n    scope,|(?<= )scope, ", "", schema)
    schema = re.sub(r"SETTINGS non_replicated_deduplication_window = \d+", "", schema)
    for new, old in (
        ("LowCardinality(String)", "String"), ("DateTime64(6, 'UTC') CODEC(Delta, ZSTD)", "DateTime('UTC')"),
        ("Nullable(Bool)", "Nullable(UInt8)"),
    ):
        schema = schema.replace(new, old)
    return schema


class ClickHouse:
    """A ClickHouse of one of the two kinds, from `start` to `stop`."""

    def __init__(self, command: list[str], port: int, directory: Path) -> None:
        self.command, self.port, self.directory = command, port, directory
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def server(binary: str, directory: Path, password: str) -> ClickHouse:
        """The server of a Debian package, with a user `tollgate`."""
        port = free_port()
        config = directory / "config.xml"
        for name in ("data", "tmp"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        config.write_text(SERVER_XML.format(port=port, directory=directory, password=password), encoding="utf-8")
        return ClickHouse([binary, f"--config-file={config}"], port, directory)

    @staticmethod
    def library(python: str, directory: Path) -> ClickHouse:
        """The library, behind this file."""
        port = free_port()
        return ClickHouse([python, __file__, str(port), str(directory / "data")], port, directory)

    def start(self) -> ClickHouse:
        """Run it and wait until it answers."""
        tie = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*tie, *self.command], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                assert self.query("SELECT 1") == "1"
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"ClickHouse does not start:\n{self.log()}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it; may be called twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def query(self, sql: str) -> str:
        """The answer as tab-separated text, without the last newline."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", data=sql.encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return str(response.read(), "utf-8").removesuffix("\n")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{sql}\n{error.read().decode(errors='replace')}") from error

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The answer's rows, with exact numbers."""
        return [json.loads(line, parse_float=Decimal) for line in self.query(f"{sql} FORMAT JSONEachRow").splitlines()]

    def create(self, schema: str) -> None:
        """Run a file of SQL."""
        for statement in statements(schema):
            self.query(statement)

    def __enter__(self) -> ClickHouse:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# The library's HTTP interface, run by its own Python.


def serve(port: int, directory: str) -> None:
    """Answers as ClickHouse's HTTP handler: the statement is `query` or the body, the rest of the URL are settings."""
    from chdb import session

    database = session.Session(directory)
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            settings = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            statement = settings.pop("query", "")
            if settings:
                # In an INSERT they stand before the format, which the data follows.
                place = statement.rfind(" FORMAT ")
                listed = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
                statement = f"{statement[:place]} SETTINGS {listed}{statement[place:]}"
            sql = f"{statement}\n{body}" if statement else body
            try:
                with one_at_a_time:
                    answer, status = database.query(sql, "TabSeparated").bytes(), 200
            except RuntimeError as error:
                answer, status = str(error).encode(), 400
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: object) -> None:
            """Nothing: only what goes wrong is of interest."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
