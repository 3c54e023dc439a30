"""A real Prometheus with the shipped rules, scraping one Envoy every second.

    with Prometheus(tools, stack.admin_port) as prometheus:
        prometheus.wait_for("job:tollgate_cost_usd:increase1h")

Its configuration is examples/prometheus; only the target and how often it looks are changed. It listens on loopback, on a
port the kernel chose, keeps its data in a directory of its own and dies with the thread that started it.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from support.envoy_config import ROOT
from support.stack import tail

EXAMPLES = ROOT / "examples" / "prometheus"
RULES = EXAMPLES / "tollgate.rules.yaml"
READY_SECONDS = 20.0
INTERVAL = "1s"

Series = list[tuple[dict[str, str], float]]


class QueryError(Exception):
    """Prometheus refuses an expression; the text is its own."""


def free_port() -> int:
    """A port nobody listens on now. Prometheus cannot be told to choose one and say which."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """The server; `tools` is the directory of its binary."""

    def __init__(self, tools: Path, admin_port: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tollgate-prometheus-"))
        self.log_path = self.directory / "prometheus.log"
        self._binary, self._target = tools / "prometheus", f"127.0.0.1:{admin_port}"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        try:
            self._write()
            self._launch()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_rest: object) -> None:
        self._stop()

    def _write(self) -> None:
        config = yaml.safe_load((EXAMPLES / "prometheus.yaml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [self._target]}]
        rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group["interval"] = INTERVAL
        (self.directory / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (self.directory / RULES.name).write_text(yaml.safe_dump(rules), encoding="utf-8")

    def _launch(self) -> None:
        command = [
            str(self._binary), f"--config.file={self.directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.directory / 'data'}", f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        tie = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*tie, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"Prometheus is not ready:\n{tail(self.log_path.read_text(encoding='utf-8'))}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the API."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            raise QueryError(refusal.read().decode()) from refusal

    def query(self, expression: str, at: float | None = None) -> Series:
        """An instant vector as labels and values, now or at another time."""
        found = self.get("query", query=expression, **({} if at is None else {"time": f"{at:.3f}"}))
        assert found["resultType"] == "vector", expression
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]

    def wait_for(self, expression: str, seconds: float = 20) -> Series:
        """The same, once it gives anything."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"`{expression}` gives nothing after {seconds:g} s")
            time.sleep(0.1)
        return found
