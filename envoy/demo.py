"""The demo: a real Envoy with the filter, a replay provider, real clients, what each call cost and what budgets said.

`make demo` sends calls by several providers' SDKs through the shipped envoy.yaml, waits for their usage records and
prints one table. Every record is compared with what the replay provider served, with the prices in envoy.yaml and with
what its budgets must decide, so the demo fails when the filter is wrong. `make run` leaves the stack up on
127.0.0.1:10000, with its admin endpoint open to a token of this run, and prints a line for each call that passes.
Nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
# Until there is something to stop, Ctrl-C just ends this; a traceback out of an import helps nobody.
signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    import anthropic
    import boto3
    import botocore.config
    import openai
    from google import genai
    from support import envoy_config
    from support.audit import cost_picousd
    from support.replay import fixtures
    from support.stack import Stack, StackError
except ImportError as missing:
    sys.exit(f"demo: {missing.name or missing} is not installed for this Python: run it with `make demo`")

DEMO_DIR = ROOT / "target" / "demo"
# A pause after each event of a stream, so that it can be seen to be one.
EVENT_DELAY_MS = 25
RECORD_SECONDS = 15.0
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
# As long as the replay provider's answer says it was, so that what a call holds in budgets is close to what it costs.
PAPERS: list[Any] = [{"role": "user", "content": "Summarise what these papers say about groundwater.\n" * 33}]
# The name of a tool that makes a call one that writes.
WRITES: list[Any] = [{"type": "function", "function": {"name": "create_ticket", "parameters": {"type": "object"}}}]
AGENTS = "openai-chat-json.json"
# What the budgets of envoy.yaml must say aloud: budget, scope, percent.
ALERTS = [("department-month", {"department": "research"}, 50)]
WHO = ("department", "feature", "user")
TOKENS = (
    "input_tokens", "cached_input_tokens", "cache_creation_input_tokens", "output_tokens", "reasoning_tokens",
    "total_tokens",
)
UNATTRIBUTED = "unattributed"
PICO = Decimal(10) ** -12

Record = dict[str, Any]


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM."""


@dataclass(slots=True)
class Call:
    """One call: how to send it (returns the id that the filter put on the answer) and what its record must say."""

    title: str
    send: Callable[[], str | None]
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    fixture: str | None = None
    expect: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    # What the client was told where the gateway answered.
    refusal: str | None = None

    def expected(self) -> dict[str, Any]:
        """The record's fields; None where a field must be absent."""
        wanted: dict[str, Any] = {"type": "usage", "request_model": self.model, "status": 200, "decision": "allowed"}
        wanted |= {name: self.headers.get(f"x-cost-{name}") for name in WHO}
        if self.fixture is not None:
            meta = fixtures()[self.fixture].meta
            usage = meta["usage"]
            wanted |= {name: usage[name] for name in TOKENS if usage.get(name)}
            wanted |= {"api": meta["api"], "end_reason": "complete", "usage_source": "reported"}
            wanted |= cost([self.model, meta.get("response_model")], usage)
        return wanted | self.expect


def cost(models: list[str | None], usage: dict[str, int]) -> dict[str, Any]:
    """What the price table in envoy.yaml makes of a usage of the first of `models` that it knows, computed apart from
    the filter."""
    costs = (cost_picousd(model, usage) for model in models)
    cost = next((cost for cost in costs if cost is not None), None)
    return {"price_status": "unknown_model" if cost is None else "priced", "cost_picousd": cost}


def downgraded(model: str, to: str, fixture: str, budget: str) -> dict[str, Any]:
    """What the record of a call says that asked for `model` and got an answer of `to`."""
    usage = fixtures()[fixture].meta["usage"]
    paid, asked = cost_picousd(to, usage), cost_picousd(model, usage)
    if paid is None or asked is None:
        raise StackError(f"envoy.yaml has no price of {model} or {to}")
    return {
        "decision": "downgraded", "budget": budget, "downgraded_from": model, "priced_model": to, "cost_picousd": paid,
        "avoided_cost_usd": float(Decimal(asked - paid) * PICO),
    }


def refused(budget: str) -> dict[str, Any]:
    """What the record of a call says that a budget kept from the provider."""
    return {
        "status": 429, "decision": "refused", "budget": budget, "error": "budget_exceeded", "end_reason": "local_reply",
        "usage_source": "none", "output_tokens": None, "cost_picousd": 0,
    }


def calls(url: str) -> list[Call]:
    """The calls of the demo, in order."""

    def sdk(headers: dict[str, str]) -> openai.OpenAI:
        # No retries: one call, one record.
        return openai.OpenAI(base_url=f"{url}/v1", api_key="sk-demo", max_retries=0, default_headers=headers)

    def plain(call: Call, extra: dict[str, str]) -> str | None:
        try:
            raw = sdk(call.headers).chat.completions.with_raw_response.create(
                model=call.model, messages=HELLO, extra_headers=extra
            )
        except openai.APIStatusError as error:
            return error.response.headers.get("x-tollgate-id")
        return raw.headers.get("x-tollgate-id")

    def agent(call: Call, tools: list[Any] | openai.NotGiven = openai.NOT_GIVEN) -> str | None:
        try:
            raw = sdk(call.headers).chat.completions.with_raw_response.create(
                model=call.model, messages=PAPERS, max_tokens=64, tools=tools
            )
        except openai.RateLimitError as error:
            call.refusal = str(error.body["message"]) if isinstance(error.body, dict) else None
            return error.response.headers.get("x-tollgate-id")
        return raw.headers.get("x-tollgate-id")

    def streamed(call: Call, asks: bool, stop_after: int | None = None) -> str | None:
        options: Any = {"stream_options": {"include_usage": True}} if asks else {}
        raw = sdk(call.headers).chat.completions.with_raw_response.create(
            model=call.model, messages=HELLO, stream=True, **options
        )
        stream = raw.parse()
        heard = False
        for number, event in enumerate(stream, start=1):
            heard |= event.usage is not None
            if number == stop_after:
                stream.close()
                break
        if stop_after is None and heard != asks:
            raise StackError(f"{call.title}: a client gets usage if it asks for it, and else does not")
        return raw.headers.get("x-tollgate-id")

    def responses(call: Call) -> str | None:
        raw = sdk(call.headers).responses.with_raw_response.create(model=call.model, input="hello")
        return raw.headers.get("x-tollgate-id")

    def claude(call: Call) -> str | None:
        client = anthropic.Anthropic(base_url=url, api_key="sk-demo", max_retries=0, default_headers=call.headers)
        with client.messages.stream(model=call.model, max_tokens=1024, messages=HELLO) as stream:
            stream.get_final_message()
            return stream.response.headers.get("x-tollgate-id")

    def gemini(call: Call) -> str | None:
        options = genai.types.HttpOptions(base_url=url, headers=call.headers)
        client = genai.Client(api_key="demo", http_options=options)
        chunks = list(client.models.generate_content_stream(model=call.model, contents="hello"))
        answer = chunks[-1].sdk_http_response
        return (answer.headers or {}).get("x-tollgate-id") if answer else None

    def bedrock(call: Call) -> str | None:
        client = boto3.client(
            "bedrock-runtime", region_name="eu-central-1", endpoint_url=url, aws_access_key_id="demo",
            aws_secret_access_key="demo", config=botocore.config.Config(retries={"max_attempts": 0}),
        )

        # After signing: the gateway removes these headers, and a signature must not cover them.
        def add(request: Any, **_rest: Any) -> None:
            for name, value in call.headers.items():
                request.headers[name] = value

        client.meta.events.register("before-send.bedrock-runtime", add)
        reply = client.converse_stream(modelId=call.model, messages=[{"role": "user", "content": [{"text": "hello"}]}])
        list(reply["stream"])
        return reply["ResponseMetadata"]["HTTPHeaders"].get("x-tollgate-id")

    def curl(call: Call, *options: str) -> str | None:
        body = json.dumps({"model": call.model, "messages": HELLO})
        sent = [word for name, value in call.headers.items() for word in ("-H", f"{name}: {value}")]
        command = ["curl", "-sS", "-m", "20", "-D", "-", "-o", "/dev/null", *options, *sent]
        command += ["-H", "content-type: application/json", "-d", body, f"{url}/v1/chat/completions"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(f"curl failed: {done.stderr.strip()}")
        pairs = (line.partition(":") for line in done.stdout.splitlines())
        return next((value.strip() for name, _, value in pairs if name.lower() == "x-tollgate-id"), None)

    def who(department: str, feature: str, user: str, **more: str) -> dict[str, str]:
        named = {"department": department, "feature": feature, "user": user, **more}
        return {f"x-cost-{name.replace('_', '-')}": value for name, value in named.items()}

    def research(run: str) -> dict[str, str]:
        return who("research", "papers", "u-0311", run_id=run, environment="demo")

    def made(title: str, how: Callable[..., str | None], *arguments: Any, **rest: Any) -> Call:
        call = Call(title, lambda: how(call, *arguments), **rest)
        return call

    return [
        made("OpenAI", plain, {}, model="gpt-4o-mini", headers=who("support", "chatbot", "u-1042"),
             fixture="openai-chat-json.json"),
        made("OpenAI, streamed", streamed, True, model="gpt-4o",
             headers=who("support", "ticket-summary", "u-2077", session="JIRA-2341"),
             fixture="openai-chat-sse-usage.sse", expect={"session": "JIRA-2341", "stream": True}),
        made("OpenAI, did not ask for usage", streamed, False, model="gpt-4o",
             headers=who("support", "ticket-summary", "u-2077"), fixture="openai-chat-sse-usage.sse",
             expect={"stream": True, "notes": None}),
        made("OpenAI, cache, reasoning", plain, {}, model="gpt-5",
             headers=who("finance", "invoice-check", "u-0003", gl_account="6420"),
             fixture="openai-chat-json-cached-reasoning.json", expect={"gl_account": "6420"}),
        made("OpenAI Responses", responses, model="gpt-5", headers=who("finance", "dunning", "u-0003"),
             fixture="openai-responses-json.json"),
        made("Anthropic, streamed, cache", claude, model="claude-sonnet-4-6",
             headers=who("product", "code-review", "u-0815"), fixture="anthropic-messages-sse-cache.sse",
             expect={"stream": True, "provider": "anthropic"}),
        made("Gemini, streamed", gemini, model="gemini-2.5-flash", headers=who("product", "translate", "u-0816"),
             fixture="gemini-stream-sse-crlf.sse", expect={"stream": True, "provider": "google"}),
        made("Bedrock, streamed, cache", bedrock, model="eu.anthropic.claude-haiku-4-5-20251001-v1:0",
             headers=who("finance", "contracts", "u-0004"), fixture="bedrock-converse-stream.bin",
             expect={"stream": True, "provider": "bedrock"}),
        made("curl, gzip answer", curl, "--compressed", "-H", "x-replay-gzip: 1", model="gpt-4o",
             headers=who("product", "search", "u-0815"), fixture="openai-chat-json.json"),
        made("OpenAI, no headers", plain, {}, model="gpt-4o-mini", fixture="openai-chat-json.json"),
        made("curl, unknown model", curl, model="acme-chat-9b", headers=who("support", "triage", "u-1042"),
             fixture="openai-chat-json-unknown-model.json"),
        made("OpenAI fails", plain, {"x-replay-status": "500"}, model="gpt-4o",
             headers=who("support", "chatbot", "u-1042"),
             expect={"status": 500, "usage_source": "none", "output_tokens": None, "cost_picousd": 0}),
        made("OpenAI, client hangs up", streamed, True, 12, model="gpt-4o",
             headers=who("product", "drafts", "u-0815"),
             expect={"end_reason": "client_abort", "usage_source": "estimated", "price_status": "estimated"}),
        # A department whose budget is nearly used up by one call, and a run that makes more calls than it may.
        made("agent reads", agent, model="gpt-4o", headers=research("run-1"), fixture=AGENTS,
             expect={"workload": "agentic-read", "budget": None}),
        made("agent reads, budget spent", agent, model="gpt-4o", headers=research("run-1"), fixture=AGENTS,
             expect=downgraded("gpt-4o", "gpt-4o-mini", AGENTS, "department-month")),
        made("agent writes, budget spent", agent, WRITES, model="gpt-4o", headers=research("run-2"),
             expect=refused("department-month") | {"workload": "agentic-write"}),
        # Refused by its headers, before its body is read.
        made("the first run once more", agent, model="gpt-4o", headers=research("run-1"),
             expect=refused("run-cap") | {"request_model": None}),
        made("another run", agent, model="gpt-4o", headers=research("run-3"), fixture=AGENTS,
             expect=downgraded("gpt-4o", "gpt-4o-mini", AGENTS, "department-month")),
    ]


def problems(call: Call, records: list[Record], logged: list[Record]) -> list[str]:
    """What is wrong with a call's record."""
    if call.id is None:
        return ["the answer carries no x-tollgate-id: is dist/tollgate.wasm current?"]
    found = [r for r in records if r.get("id") == call.id]
    if len(found) != 1:
        return [f"{len(found)} records at the collector, expected one"]
    wanted = call.expected()
    wrong = [f"{k} is {found[0].get(k)!r}, expected {v!r}" for k, v in wanted.items() if found[0].get(k) != v]
    in_log = [r for r in logged if r.get("id") == call.id]
    if len(in_log) != 1:
        wrong.append(f"{len(in_log)} records in the access log, expected one")
    elif in_log[0].get("cost_picousd") != found[0].get("cost_picousd"):
        wrong.append("the access log names another cost")
    return wrong


def usd(picousd: int | None) -> str:
    """Pico-dollars as exact dollars, with at least seven decimals so that columns line up; a dash when unknown."""
    if picousd is None:
        return "-"
    whole, _, fraction = f"{Decimal(picousd) * PICO:.12f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(7, '0')}"


COLUMNS = (
    "call", "who (department / feature / user)", "model", "in", "out", "cost USD", "status, end", "usage", "decision",
)


def row(title: str, record: Record) -> tuple[str, ...]:
    """A record as a line of the table."""
    named = [record[name] for name in WHO if record.get(name) is not None]
    model = next((record[n] for n in ("response_model", "priced_model", "request_model") if n in record), "-")
    price = usd(record.get("cost_picousd"))
    if price == "-" and record.get("price_status") == "unknown_model":
        price = "unknown model"
    counts = [str(record.get(name, "-")) for name in ("input_tokens", "output_tokens")]
    end = f"{record.get('status', '-')} {record.get('end_reason', '-')}"
    decision = " by ".join(record[name] for name in ("decision", "budget") if name in record)
    usage = str(record.get("usage_source", "-"))
    return (title, " / ".join(named) or UNATTRIBUTED, model, *counts, price, end, usage, decision)


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need; numbers to the right."""
    widths = [max(len(line[i]) for line in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    for line in [COLUMNS, tuple("-" * w for w in widths), *rows]:
        cells = [c.rjust(w) if i in (3, 4, 5) else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def print_totals(records: list[Record]) -> None:
    """Sums over what is known, and how much is not."""
    spent = sum(r.get("cost_picousd", 0) for r in records)
    nobody = sum(r.get("cost_picousd", 0) for r in records if r.get("department") is None)
    tokens = [sum(r.get(name, 0) for r in records) for name in ("input_tokens", "output_tokens")]
    unknown = sum("cost_picousd" not in r for r in records)
    print(f"\n{len(records)} records, {tokens[0]} tokens in, {tokens[1]} out, {usd(spent)} USD,")
    guessed = sum(r.get("cost_picousd", 0) for r in records if r.get("price_status") == "estimated")
    print(f"of which {usd(nobody)} {UNATTRIBUTED} and {usd(guessed)} estimated; calls of unknown cost: {unknown}")
    avoided = sum((Decimal(str(r["avoided_cost_usd"])) for r in records if "avoided_cost_usd" in r), Decimal())
    print(f"avoided by cheaper models: {avoided.normalize():f} USD")


def print_record(record: Record) -> None:
    """A record as JSON, a line a field."""
    fields = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in record.items()]
    print("{\n" + ",\n".join(fields) + "\n}")


def demo(stack: Stack) -> int:
    """Send the calls, wait, print, check."""
    todo = calls(stack.client.url)
    print(f"Envoy with Tollgate is up; sending {len(todo)} calls", flush=True)
    for number, call in enumerate(todo, start=1):
        call.id = call.send()
        if call.id is not None:
            # What a call cost is known to the budgets when it is over: the next one finds it spent, not held.
            stack.wait_access_log(number, RECORD_SECONDS)
    patience = RECORD_SECONDS if any(call.id for call in todo) else 1
    try:
        stack.sink.wait_for(len(todo), patience, where=is_usage)
        stack.sink.wait_for(len(ALERTS), patience, where=is_alert)
        stack.wait_access_log(len(todo), patience)
    except (TimeoutError, StackError) as late:
        print(f"demo: {late}", file=sys.stderr)
    sent, logged = list(stack.sink.records), stack.access_log()
    records, alerts = [r for r in sent if is_usage(r)], [r for r in sent if is_alert(r)]
    by_id = {r.get("id"): r for r in records}
    print()
    print_table([row(call.title, by_id[call.id]) for call in todo if call.id in by_id])
    print_totals(records)
    for alert in alerts:
        print(f"alert: {alert_text(alert)}")
    for call in todo:
        if call.refusal is not None:
            print(f"\"{call.title}\" was told: {call.refusal}")
    if sample := by_id.get(todo[1].id):
        print(f"\nThe record of \"{todo[1].title}\":")
        print_record(sample)
    print(f"\nrecords:    {shown(stack.records_path)}\naccess log: {shown(stack.access_log_path)}")
    failures = [f"{call.title}: {p}" for call in todo for p in problems(call, records, logged)]
    if len(records) != len(todo):
        failures.append(f"{len(records)} records for {len(todo)} calls")
    if (told := [(a["budget"], a["scope"], a["threshold_percent"]) for a in alerts]) != ALERTS:
        failures.append(f"the alerts are {told}, expected {ALERTS}")
    # Of a call that is refused for what its body says, the provider has seen headers and nothing else.
    whole = sum(request["body_len"] is not None for request in list(stack.replay.requests))
    if whole != (passed := sum(call.expect.get("decision") != "refused" for call in todo)):
        failures.append(f"the provider got {whole} whole requests, expected {passed}")
    leaked = {name.lower() for r in list(stack.replay.requests) for name, _ in r["headers"]}
    failures += [f"the provider saw {name}" for name in sorted(leaked) if name.startswith("x-cost-")]
    for failure in failures:
        print(f"demo: {failure}", file=sys.stderr)
    if not failures:
        print(f"checked: {len(records)} records, tokens and costs exact; no X-Cost-* header reached the provider,")
        print("and no body of a refused call")
    elif said := stack.log().strip():
        print(f"demo: Envoy said:\n{said}", file=sys.stderr)
    return 1 if failures else 0


def is_usage(record: Record) -> bool:
    """Whether a record is about a call."""
    return record.get("type") == "usage"


def is_alert(record: Record) -> bool:
    """Whether a record says that a budget reached a threshold."""
    return record.get("type") == "budget_alert"


def alert_text(alert: Record) -> str:
    """An alert in a line."""
    scope = ", ".join(f"{name} {value}" for name, value in alert["scope"].items())
    spent = f"{alert['spent_usd']} of {alert['limit_usd']} USD"
    return f"{alert['budget']} of {scope}: {alert['threshold_percent']} % reached, {spent} spent"


def shown(path: Path) -> str:
    """A path as people type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def run(stack: Stack, token: str) -> int:
    """Print what to type, then a line for each record, until interrupted."""
    admin = f"http://127.0.0.1:{stack.admin_port}"
    typed = f"curl -sN {stack.client.url}/v1/chat/completions -H 'content-type: application/json' \\\n    "
    named = "-H 'x-cost-feature: chatbot' -H 'x-cost-department: support' \\\n    "
    asked = '"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]'
    streaming = '"stream": true, "stream_options": {"include_usage": true}'
    agent = "-H 'x-cost-environment: demo' -H 'x-cost-department: research' -H 'x-cost-run-id: run-1' \\\n    "
    print(f"""Envoy with Tollgate is up. A call, the same streamed, one that budgets look at (send it three times), how
they stand, the metrics, the records:

  {typed}{named}-d '{{{asked}}}'

  {typed}{named}-d '{{{asked}, {streaming}}}'

  {typed}{agent}-d '{{{asked}, "max_tokens": 64}}'

  curl -s {stack.client.url}/.tollgate/budgets -H 'authorization: Bearer {token}'

  curl -s {admin}/stats/prometheus | grep ^tollgate_

  tail -f {shown(stack.access_log_path)}

Ctrl-C ends it. Each call appears here when its record reaches the collector:
""", flush=True)
    seen = 0
    while stack.running():
        for record in stack.sink.records[seen:]:
            if is_usage(record):
                print("  ".join(row(str(record.get("ts", "")), record)), flush=True)
            elif is_alert(record):
                print(f"{record['ts']}  alert: {alert_text(record)}", flush=True)
            seen += 1
        time.sleep(0.1)
    print(f"demo: Envoy ended by itself:\n{stack.log()}", file=sys.stderr)
    return 1


def main() -> int:
    """Parse, start, play, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true", help="leave the stack up until Ctrl-C")
    options = parser.parse_args()
    if not options.run and shutil.which("curl") is None:
        sys.exit("demo: curl is not installed; with Debian or Ubuntu: apt-get install curl")

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    shutil.rmtree(DEMO_DIR, ignore_errors=True)
    token = secrets.token_hex(16)

    def open_admin(bootstrap: envoy_config.Bootstrap) -> None:
        hashed = hashlib.sha256(token.encode()).hexdigest()
        envoy_config.filter_config(bootstrap)["admin"] = {"token_sha256": hashed}

    edit = open_admin if options.run else None
    try:
        with Stack(edit, fixed_ports=True, event_delay_ms=EVENT_DELAY_MS, directory=DEMO_DIR) as stack:
            return run(stack, token) if options.run else demo(stack)
    except StackError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print()
        return 0 if options.run else 130


if __name__ == "__main__":
    sys.exit(main())
