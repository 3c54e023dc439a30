"""What the filter costs, measured on a real Envoy: `make bench`.

Every figure comes from one run in which Envoys with and without the filter stand side by side and take turns, so that
the ratio holds even where the machine is slow or shared. CPU time of the whole Envoy process is counted, by the kernel
and in nanoseconds, never the wall clock (but for calls per second): what clients and upstream cost, or wait for, is not in it. Nothing here is a
test and nothing fails on a number; every answer is checked all the same, and so is the number of records.

    no filter    envoy/envoy.yaml without the filter and without its access log
    filter       with the filter, records only in filter state
    budgets      as filter, with three budgets that count every call
    as shipped   envoy/envoy.yaml: records in an access log file and in batches to a collector, too

The result is printed and written to target/bench/results.json. TOLLGATE_BENCH_ROUNDS (default 25) sets the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "bench")]

from load import CONNECTIONS, Call, Client, Upstream, chunked, request, sized  # noqa: E402
from support import envoy_config  # noqa: E402
from support.envoy_config import Bootstrap  # noqa: E402
from support.price_tables import MODELS, count_rates, full_table  # noqa: E402
from support.stack import WASM, Stack, find_envoy  # noqa: E402

OUTPUT = ROOT / "target" / "bench"
FIXTURES = ROOT / "tests" / "fixtures"
ROUNDS = max(2, int(os.environ.get("TOLLGATE_BENCH_ROUNDS", "25")))
# V8 compiles what is hot once more, in the background; that belongs to no round.
WARM_UP_CALLS = 4000
STARTS = 5
MANY_WORKERS = 9
SETTLE_SECONDS = 0.15
STALL_ROUNDS, STALL_CALLS = min(ROUNDS, 10), 3000
SINK_SECONDS = 10.0
FLUSH_MS = 100

Edit = Callable[[Bootstrap], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several measurements, and the quartiles: half of them lie in between."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float]) -> Spread:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)

    def show(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def cpu_us(pid: int) -> float:
    """User and system time of a process so far. The clock of another process, as clock_getcpuclockid(3) makes it: the
    same sum as in /proc/PID/stat, without its ticks of 10 ms."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1000


def age_ms(pid: int) -> float:
    """Time since a process was started, to 10 ms."""
    started = int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return (time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")) * 1000


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


# Variants of the shipped bootstrap


def without_filter(bootstrap: Bootstrap) -> None:
    filters = envoy_config.http_filters(bootstrap)
    filters[:] = [f for f in filters if f["name"] != "tollgate"]
    envoy_config.connection_manager(bootstrap)["access_log"] = []


def filter_only(bootstrap: Bootstrap) -> None:
    del envoy_config.filter_config(bootstrap)["collector"]
    envoy_config.connection_manager(bootstrap)["access_log"] = []


def as_shipped(bootstrap: Bootstrap) -> None:
    # The stack adds a log of its own behind the shipped one.
    del envoy_config.connection_manager(bootstrap)["access_log"][1:]
    # Ten times as often as shipped, so that no round waits a second for its records.
    envoy_config.filter_config(bootstrap)["collector"]["flush_ms"] = FLUSH_MS


def many_models(bootstrap: Bootstrap) -> None:
    filter_only(bootstrap)
    envoy_config.filter_config(bootstrap)["prices"] = full_table()


def three_budgets(bootstrap: Bootstrap) -> None:
    filter_only(bootstrap)
    envoy_config.filter_config(bootstrap)["budgets"] = [
        {"name": "all", "limit_usd": "1000000", "window": "year", "alert_at": [50, 80, 100]},
        {"name": "department", "per": ["department"], "when_missing": "share", "limit_usd": "1000000",
         "window": "month", "timezone": "Europe/Berlin"},
        {"name": "user", "per": ["user", "feature"], "when_missing": "share", "limit_tokens": 10**15,
         "limit_calls": 10**12, "window": "day"},
    ]


VARIANTS: dict[str, Edit] = {
    "no filter": without_filter, "filter": filter_only, "budgets": three_budgets, "as shipped": as_shipped,
}


def calls() -> list[Call]:
    """Every kind of call that is measured. Requests have 2 KB of messages, as short ones do."""
    chat = {"model": "gpt-4o", "messages": [
        {"role": "system", "content": "You answer questions about \"invoices\" in one sentence.\n" * 30},
        {"role": "user", "content": "Which invoices are due in March, and what do they come to? " * 5},
    ]}
    body = json.dumps(chat).encode()
    stream_body = json.dumps({**chat, "stream": True, "stream_options": {"include_usage": True}}).encode()
    path = "/v1/chat/completions"
    who = ("feature", "department", "team", "user", "session", "run-id", "project", "environment", "tag-tier", "tag-app")
    headers = {f"x-cost-{name}": f"value-of-{name}" for name in who}
    kind = {"content-type": "application/json", "server": "upstream", "x-request-id": "req_0123456789"}
    reply = (FIXTURES / "openai-chat-json.json").read_bytes()
    stream = (FIXTURES / "openai-chat-sse-usage.sse").read_bytes()
    events = [event + b"\n\n" for event in stream.split(b"\n\n") if event]
    sse = {**kind, "content-type": "text/event-stream; charset=utf-8"}
    order = json.dumps({"orders": [{"id": n, "article": "paper", "price": "2.50"} for n in range(30)]}).encode()
    packed = gzip.compress(reply, mtime=0)
    plain, streamed = request(path, body, {}), request(path, stream_body, {})
    return [
        Call("JSON", plain, sized(reply, kind), reply, 400),
        Call("JSON, 10 X-Cost headers", request(path, body, headers), sized(reply, kind), reply, 400),
        Call("JSON, gzip", request(path, body, {"accept-encoding": "gzip"}),
             sized(packed, {**kind, "content-encoding": "gzip"}), packed, 400),
        Call(f"stream of {len(events)} events at once", streamed, chunked([stream], sse), stream, 300),
        Call(f"stream of {len(events)} events one by one", streamed, chunked(events, sse), stream, 96, 2),
        Call("JSON, path nobody knows", request("/v1/other", body, {}), sized(reply, kind), reply, 400),
        Call("no LLM call, POST of JSON", request("/orders", order, {}), sized(order, kind), order, 400),
        Call("no LLM call, GET", request("/orders/17", b"", {}, "GET"), sized(order, kind), order, 400),
    ]


# CPU time per call


@dataclass(slots=True)
class Target:
    """One running Envoy and the client that calls it."""

    stack: Stack
    client: Client
    collects: bool

    async def measure(self, call: Call, number: int) -> float:
        """CPU microseconds of a call, on average over `number`. Records that leave later are waited for."""
        self.stack.sink.clear()
        before = cpu_us(self.stack.pid)
        await self.client.round(call, number)
        if self.collects and b"/chat/completions" in call.request:
            await asyncio.to_thread(self.stack.sink.wait_for, number, SINK_SECONDS)
            if len(self.stack.sink.records) != number:
                raise SystemExit(f"bench: {len(self.stack.sink.records)} records for {number} calls")
        return (cpu_us(self.stack.pid) - before) / number


async def measure_calls(progress: Callable[[str], None]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """All kinds of calls through all variants, a round of each in turn."""
    upstream = Upstream()
    await upstream.start()
    with contextlib.ExitStack() as running:
        targets: dict[str, Target] = {}
        for name, edit in VARIANTS.items():
            stack = running.enter_context(start(edit, upstream_port=upstream.port))
            targets[name] = Target(stack, Client(stack.client.port), collects=name == "as shipped")
            await targets[name].client.connect()
        rows = []
        kinds = calls()
        upstream.call = kinds[0]
        for target in targets.values():
            await target.measure(kinds[0], WARM_UP_CALLS)
        for call in kinds:
            progress(call.name)
            upstream.call = call
            samples: dict[str, list[float]] = {name: [] for name in targets}
            for target in targets.values():
                await target.measure(call, call.calls_per_round)
            for _ in range(ROUNDS):
                for name, target in targets.items():
                    samples[name].append(await target.measure(call, call.calls_per_round))
            pieces = targets["filter"].client.chunks / call.calls_per_round
            rows.append(call_row(call, pieces, samples))
        memory = {name: rss_mb(target.stack.pid) for name, target in targets.items()}
        for target in targets.values():
            target.client.close()
    return rows, memory


def call_row(call: Call, pieces: float, samples: dict[str, list[float]]) -> dict[str, Any]:
    """Microseconds of each variant, and of what it adds to its neighbour of the same round."""
    base = samples["no filter"]
    row: dict[str, Any] = {"call": call.name, "calls_per_round": call.calls_per_round, "pieces_per_call": pieces}
    for name, values in samples.items():
        row[name] = {"us": Spread.of(values)}
        if name != "no filter":
            row[name] |= {
                "added_us": Spread.of([v - b for v, b in zip(values, base)]),
                "ratio": Spread.of([v / b for v, b in zip(values, base)]),
            }
    plain = samples["filter"]
    row["budgets"]["over_filter_us"] = Spread.of([v - f for v, f in zip(samples["budgets"], plain)])
    row["budgets"]["over_filter_ratio"] = Spread.of([v / f for v, f in zip(samples["budgets"], plain)])
    return row


# Throughput beside a collector that stalls


async def measure_stall(progress: Callable[[str], None]) -> dict[str, Any]:
    """Calls per second through the shipped configuration, with the collector up and with it stalled, in turn."""
    progress("stalled collector")
    upstream = Upstream()
    await upstream.start()
    upstream.call = calls()[0]
    with start(as_shipped, upstream_port=upstream.port) as stack:
        client = Client(stack.client.port)
        await client.connect()

        async def rate(stalled: bool) -> float:
            stack.sink.clear()
            stack.sink.stalled = stalled
            began = time.monotonic()
            await client.round(upstream.call, STALL_CALLS)
            took = time.monotonic() - began
            stack.sink.stalled = False
            # Nothing of this round is under way in the next.
            await asyncio.to_thread(stack.sink.wait_for, STALL_CALLS, SINK_SECONDS)
            return STALL_CALLS / took

        await rate(False)
        pairs = [(await rate(False), await rate(True)) for _ in range(STALL_ROUNDS)]
        client.close()
    return {
        "up_calls_per_s": Spread.of([up for up, _ in pairs]),
        "stalled_calls_per_s": Spread.of([stalled for _, stalled in pairs]),
        "ratio": Spread.of([stalled / up for up, stalled in pairs]),
    }


# Start-up


def start(edit: Edit, *, upstream_port: int | None = None, workers: int = 1) -> Stack:
    """A variant, not started yet."""

    def all_edits(bootstrap: Bootstrap) -> None:
        if upstream_port is not None:
            envoy_config.socket_address(bootstrap, "llm_upstream")["port_value"] = upstream_port
        edit(bootstrap)

    return Stack(all_edits, concurrency=workers, json_bootstrap=True, log_flush_ms=FLUSH_MS)


def settled_cpu_ms(pid: int) -> float:
    """CPU time of a process once it has come to rest: workers make their VMs after Envoy says that it is ready."""
    before = cpu_us(pid)
    while True:
        time.sleep(SETTLE_SECONDS)
        now = cpu_us(pid)
        if now - before < 1000:
            return before / 1000
        before = now


def measure_starts(progress: Callable[[str], None]) -> dict[str, Any]:
    """Starts of Envoy with one worker and with many, with and without the filter. Compiling the module is paid once;
    what each further worker costs more with the filter is its VM: instance, configuration, heap."""
    variants: dict[str, Edit] = {"no filter": without_filter, "filter": filter_only, f"{MODELS} models": many_models}
    samples: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for attempt in range(STARTS):
        progress(f"start-up {attempt + 1} of {STARTS}")
        for name, edit in variants.items():
            for workers in (1, MANY_WORKERS):
                with start(edit, workers=workers) as stack:
                    stack.client.send("POST", "/v1/other", b"{}")
                    answered = age_ms(stack.pid)
                    cpu = settled_cpu_ms(stack.pid)
                    samples.setdefault((name, workers), []).append((cpu, rss_mb(stack.pid), answered))

    def per_worker(name: str, index: int) -> list[float]:
        pairs = zip(samples[name, 1], samples[name, MANY_WORKERS])
        return [(many[index] - one[index]) / (MANY_WORKERS - 1) for one, many in pairs]

    def minus(left: list[float], right: list[float]) -> Spread:
        return Spread.of([a - b for a, b in zip(left, right)])

    big = f"{MODELS} models"
    return {
        "starts": {
            f"{name}, {workers} worker(s)": {
                "cpu_ms": Spread.of([v[0] for v in values]), "first_answer_ms": Spread.of([v[2] for v in values]),
            }
            for (name, workers), values in samples.items()
        },
        "vm_cpu_ms": minus(per_worker("filter", 0), per_worker("no filter", 0)),
        "vm_rss_mb": minus(per_worker("filter", 1), per_worker("no filter", 1)),
        "many_models": MODELS,
        "many_rates": count_rates(full_table()),
        "many_models_vm_cpu_ms": minus(per_worker(big, 0), per_worker("filter", 0)),
        "many_models_vm_rss_mb": minus(per_worker(big, 1), per_worker("filter", 1)),
    }


# The reader of replies by itself


def big_bodies() -> list[Path]:
    """A body that is one long string, and one of many small values."""
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    text = "The quick brown fox \u2014 \"quoted\"\n" * 25_000
    tokens = [{"token": f"t{n}", "logprob": n / -8, "bytes": [116, n % 256], "top_logprobs": []} for n in range(12_000)]
    choices = {"long": {"message": {"content": text}}, "dense": {"logprobs": {"content": tokens}}}
    for name, choice in choices.items():
        reply = {"id": "chatcmpl-1", "model": "gpt-4o", "choices": [{"index": 0, **choice}], "usage": usage}
        (OUTPUT / f"{name}.json").write_text(json.dumps(reply, ensure_ascii=False), encoding="utf-8")
    return [OUTPUT / f"{name}.json" for name in choices]


def measure_reader(progress: Callable[[str], None]) -> dict[str, Any]:
    """The compiled module in Node's V8 and the same code compiled natively; None where Node is missing."""
    table = OUTPUT / "prices.json"
    table.write_text(json.dumps({"version": 1, "prices": full_table()}), encoding="utf-8")
    inputs = [*map(str, big_bodies()), str(FIXTURES / "openai-chat-sse-usage.sse"), str(table)]
    config = OUTPUT / "config.json"
    bootstrap = envoy_config.load()
    filter_only(bootstrap)
    config.write_text(json.dumps(envoy_config.filter_config(bootstrap)), encoding="utf-8")
    budgets = OUTPUT / "budgets.json"
    governed = envoy_config.load()
    three_budgets(governed)
    budgets.write_text(json.dumps(envoy_config.filter_config(governed)), encoding="utf-8")
    commands = {
        "native": ["cargo", "bench", "--quiet", "--bench", "reply", "--", *inputs],
        "v8": ["node", str(ROOT / "tests" / "bench" / "v8.mjs"), str(WASM), str(config), *inputs, str(budgets)],
    }
    results: dict[str, Any] = {}
    for name, command in commands.items():
        progress(f"reader, {name}")
        if shutil.which(command[0]) is None:
            results[name] = None
            continue
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
        results[name] = json.loads(done.stdout)
    return results


# The table


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    version = subprocess.run([find_envoy(), "--version"], capture_output=True, check=True, text=True).stdout
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.split(": ")[1] for line in cpuinfo.splitlines() if line.startswith("model name")), "unknown")
    return {
        "cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "load_before": os.getloadavg()[0],
        "envoy": re.findall(r"/(\d+\.\d+\.\d+)", version)[-1], "module_bytes": WASM.stat().st_size,
        "rounds": ROUNDS, "connections": CONNECTIONS,
    }


def figure(value: float) -> str:
    """A few microseconds need a decimal."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def table(results: dict[str, Any]) -> Iterator[str]:
    """The results, for reading: medians, in parentheses the quartiles."""
    facts = results["machine"]
    yield (f"Envoy {facts['envoy']}, 1 worker, {CONNECTIONS} connections, HTTP/1.1; {facts['cores']} x {facts['cpu']}, "
           f"load {facts['load_before']:.1f} before; {facts['rounds']} rounds, median (quartiles)")
    yield ""
    yield (f"{'CPU us per call':36}{'no filter':>20}{'filter':>8}{'added':>22}{'ratio':>19}"
           f"{'as shipped':>12}{'ratio':>19}")
    for row in results["calls"]:
        base, light, full = row["no filter"], row["filter"], row["as shipped"]
        yield (f"{row['call']:36}{base['us'].show(0):>20}{light['us'].median:>8.0f}{light['added_us'].show(1):>22}"
               f"{light['ratio'].show(2):>19}{full['us'].median:>12.0f}{full['ratio'].show(2):>19}")
    for row in results["calls"]:
        if row["pieces_per_call"] > 1:
            yield f"  {row['call']}: the body passed in {row['pieces_per_call']:.1f} pieces"
    yield ""
    yield f"{'three budgets more than the filter, CPU us':48}{'added':>24}{'ratio':>20}"
    for row in results["calls"]:
        more = row["budgets"]
        yield f"{row['call']:48}{more['over_filter_us'].show(1):>24}{more['over_filter_ratio'].show(2):>20}"
    yield ""
    stall = results["stall"]
    yield f"{'calls per s as shipped, collector up':48}{stall['up_calls_per_s'].show(0):>24}"
    yield f"{'  stalled':48}{stall['stalled_calls_per_s'].show(0):>24}{stall['ratio'].show(2):>20}"
    yield ""
    starts = results["start_up"]
    for name, value in starts["starts"].items():
        answered = f"first answer after {value['first_answer_ms'].median:.0f} ms"
        yield f"{'start-up, ' + name:48}{value['cpu_ms'].show(0):>24} ms CPU, {answered}"
    yield f"{'each further worker VM':48}{starts['vm_cpu_ms'].show(1):>24} ms CPU"
    yield f"{'  and':48}{starts['vm_rss_mb'].show(1):>24} MB"
    more = f"  more with {MODELS} models, {starts['many_rates']} rates"
    yield f"{more:48}{starts['many_models_vm_cpu_ms'].show(1):>24} ms CPU"
    yield f"{'  and':48}{starts['many_models_vm_rss_mb'].show(1):>24} MB"
    for name, value in results["memory_after_mb"].items():
        yield f"{'memory after all calls, ' + name:48}{value:>24.0f} MB"
    yield ""
    reader = results["reader"]
    yield f"{'the reader by itself':48}{'native':>12}{'V8':>12}"
    for title, key in (
        ("JSON, one long string, MB/s", "long_mb_per_s"), ("JSON, many small values, MB/s", "dense_mb_per_s"),
        ("stream, ns per event", "event_ns"), ("call without a reply body, us", "call_us"),
        (f"a new VM with {MODELS} models, ms", "table_ms"), ("  its linear memory, MB", "table_memory_mb"),
        ("  and with the shipped prices, MB", "memory_mb"),
        ("ten header dimensions, us more", "ten_headers_us"), ("three budgets, us more", "three_budgets_us"),
    ):
        shown = (reader[side].get(key) if reader[side] else None for side in ("native", "v8"))
        yield f"{title:48}" + "".join(f"{'-' if value is None else figure(value):>12}" for value in shown)


def main() -> int:
    began = time.monotonic()

    def progress(what: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {what}", file=sys.stderr, flush=True)

    OUTPUT.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine()}
    results["reader"] = measure_reader(progress)
    results["calls"], results["memory_after_mb"] = asyncio.run(measure_calls(progress))
    results["stall"] = asyncio.run(measure_stall(progress))
    results["start_up"] = measure_starts(progress)
    path = OUTPUT / "results.json"
    path.write_text(json.dumps(results, indent=1, default=dataclasses.asdict) + "\n", encoding="utf-8")
    print("\n".join(table(results)))
    print(f"\n{path.relative_to(ROOT)}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
