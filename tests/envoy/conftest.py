"""Envoys for the end-to-end tests: three shared ones of each version, and as many of its own as a test asks for.

Core behaviour runs on the newest and on the oldest supported Envoy (`shipped`, `edges`, `bare`), the rest on the newest
(`start`). Everything is on loopback and random ports. Envoy's log is shown for a test that fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
pytest.register_assert_rewrite("support.audit", "support.wire")

from support import envoy_config, variants  # noqa: E402
from support.audit import assert_nothing_lost  # noqa: E402
from support.envoy_config import Bootstrap  # noqa: E402
from support.stack import Stack, find_envoy, tail  # noqa: E402

LOG_LINES = 40


@pytest.fixture(scope="session", params=["newest", "oldest"])
def envoy(request: pytest.FixtureRequest) -> str:
    """An Envoy binary."""
    if request.param == "newest":
        return find_envoy()
    path = os.environ.get("TOLLGATE_ENVOY_OLDEST")
    assert path, "TOLLGATE_ENVOY_OLDEST is not set: run `make test-envoy`, or set it to $(tools/envoy.sh oldest)"
    return path


def shared(edit: Callable[[Bootstrap], None], envoy: str) -> Iterator[Stack]:
    with Stack(edit, envoy=envoy) as stack:
        yield stack
        # Whatever the tests did, each of their calls has its one record in both places.
        assert_nothing_lost(stack)


@pytest.fixture(scope="session")
def shipped(envoy: str) -> Iterator[Stack]:
    """envoy.yaml as it is; only records leave sooner."""
    yield from shared(envoy_config.flush_soon, envoy)


@pytest.fixture(scope="session")
def edges(envoy: str) -> Iterator[Stack]:
    """envoy.yaml with a place to end in every way a stream can end: see `variants.edges`."""
    yield from shared(variants.edges, envoy)


@pytest.fixture(scope="session")
def bare(envoy: str) -> Iterator[Stack]:
    """The same gateway without the filter."""
    with Stack(variants.without_filter, envoy=envoy) as stack:
        yield stack


class Start:
    """Starts stacks for one test alone, on the newest Envoy unless told: `start(edit, dynamic=True)`."""

    def __init__(self) -> None:
        self.stacks: list[Stack] = []
        self.running = ExitStack()

    def __call__(self, edit: Callable[[Bootstrap], None] = envoy_config.flush_soon, **options: Any) -> Stack:
        stack = Stack(edit, **options)
        self.stacks.append(stack)
        return self.running.enter_context(stack)


@pytest.fixture
def start() -> Iterator[Start]:
    starter = Start()
    with starter.running:
        yield starter


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        values = list(getattr(item, "funcargs", {}).values())
        stacks = [v for v in values if isinstance(v, Stack)]
        stacks += [s for v in values if isinstance(v, Start) for s in v.stacks]
        for stack in stacks:
            report.sections.append((f"Envoy's log ({stack.log_path})", tail(stack.log(), LOG_LINES)))
    return report
