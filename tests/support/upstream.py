"""An upstream that answers every call with the same bytes, as fast as it can, and a client to match: both ends of the
benchmark's load, in a thread of their own so that blocking tests can use them."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

from bench import load


class Upstream:
    """Answers every call with the pieces of `reply`."""

    def __init__(self, reply: list[bytes]) -> None:
        self._upstream = load.Upstream()
        self._upstream.call = load.Call("any", b"", reply, b"", 1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._upstream.port

    def load(self, port: int, call: load.Call, number: int, timeout: float = 120) -> None:
        """Makes `number` calls to a port as fast as they go; raises at the first answer that is not the call's."""

        async def run() -> None:
            client = load.Client(port)
            await client.connect()
            await client.round(call, number)
            client.close()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout)

    def __enter__(self) -> Upstream:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._upstream.start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
