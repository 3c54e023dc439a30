"""The sinks people have: every example under examples/sinks loads in Envoy and reaches what it is for.

One Envoy has a listener for each example. Real ClickHouses and a real OpenTelemetry collector take the records where
there are packages of them; the others are models as strict as their documentation (support/sinks.py).
"""

from __future__ import annotations

import copy
import datetime
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Start
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import envoy_config
from support.clickhouse import SCHEMA, ClickHouse, free_port, of_2018
from support.client import Client
from support.envoy_config import ROOT, Bootstrap
from support.sinks import MODELS, Answer, LosesAnswers, Model, OpenMeter, OpenTelemetry, Record
from support.stack import Stack

SINKS = ROOT / "examples" / "sinks"
EXAMPLES = sorted(path.parent.name for path in SINKS.glob("*/tollgate.yaml"))


def example(name: str) -> dict[str, Any]:
    return yaml.safe_load((SINKS / name / "tollgate.yaml").read_text(encoding="utf-8"))


def tool(name: str) -> str:
    """What a script of tools/ prints; skips where it says that there is none."""
    done = subprocess.run([ROOT / "tools" / name], capture_output=True, text=True, timeout=600)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def logged(stack: Stack) -> list[Record]:
    """The records in the access log, with exact numbers."""
    text = stack.access_log_path.read_text(encoding="utf-8") if stack.access_log_path.exists() else ""
    return [json.loads(line, parse_float=Decimal) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def logged_as(stack: Stack, id: str) -> Record:
    """The one record of a call."""
    stack.wait(lambda: any(r["id"] == id for r in logged(stack)), 10, f"no record {id}")
    (record,) = (r for r in logged(stack) if r["id"] == id)
    return record


# One Envoy with a listener for each example


class Gateway:
    """The running Envoy and the models behind it."""

    def __init__(self, stack: Stack, models: dict[str, Model]) -> None:
        self.stack, self.models = stack, models
        listeners = json.loads(stack.admin("/listeners?format=json"))["listener_statuses"]
        ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in listeners}
        self.clients = {name: Client(ports[name]) for name in models}

    def call(self, name: str, **headers: str) -> str:
        """A call whose record goes to this sink; its id."""
        reply = self.clients[name].chat(headers={"x-cost-department": "sales", "x-cost-tag-tier": "gold", **headers})
        assert reply.status == 200
        return str(reply.headers["x-tollgate-id"])


def serves(directory: Path, hosts: list[str]) -> ssl.SSLContext:
    """A server of these hosts, with a certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sinks")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    file, private = directory / "sinks.pem", directory / "sinks.key"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, private)
    return context


def add(bootstrap: Bootstrap, name: str, parts: dict[str, Any], listener: dict[str, Any]) -> None:
    """An example in a bootstrap: a listener of its own, as the shipped one is, its clusters and its secrets."""
    resources = bootstrap["static_resources"]
    resources["clusters"] += parts["clusters"]
    resources.setdefault("secrets", []).extend(parts.get("secrets", []))
    own = {"static_resources": {"listeners": [copy.deepcopy(listener) | {"name": name}]}}
    prices = envoy_config.filter_config(own)["prices"]
    envoy_config.set_filter_config(own, {"version": 1, "prices": prices, "collector": parts["collector"]})
    resources["listeners"] += own["static_resources"]["listeners"]


def redirected(name: str, port: int, directory: Path) -> dict[str, Any]:
    """The example with its sink on loopback, its key and the authority that it trusts in files of this test."""
    parts = example(name)
    (cluster,) = parts["clusters"]
    cluster["type"] = "STATIC"
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    if socket := cluster.get("transport_socket"):
        trust = socket["typed_config"]["common_tls_context"]["validation_context"]["trusted_ca"]
        trust["filename"] = str(directory / "sinks.pem")
    for secret in parts.get("secrets", []):
        file = directory / secret["name"]
        _, key = MODELS[name].secret or ("", "")
        file.write_text(key, encoding="utf-8")
        secret["generic_secret"]["secret"]["filename"] = str(file)
    parts["collector"]["flush_ms"] = 20
    return parts


@pytest.fixture(scope="module")
def gateway(envoy: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("sinks")
    sockets = {name: example(name)["clusters"][0].get("transport_socket") for name in EXAMPLES}
    tls = serves(directory, [socket["typed_config"]["sni"] for socket in sockets.values() if socket])
    models = {name: MODELS[name](tls if sockets[name] else None) for name in EXAMPLES}

    def edit(bootstrap: Bootstrap) -> None:
        listener = copy.deepcopy(envoy_config.listener(bootstrap))
        for name, model in models.items():
            add(bootstrap, name, redirected(name, model.port, directory), listener)

    with ExitStack() as running:
        for model in models.values():
            running.enter_context(model)
        yield Gateway(running.enter_context(Stack(edit, envoy=envoy)), models)


def test_each_sink_has_an_example_and_a_model() -> None:
    assert {path.name for path in SINKS.iterdir() if path.is_dir()} == set(EXAMPLES) == set(MODELS)


# Where the sink's own configuration says on which port it listens.
LISTENS = {
    "elastic": ("logstash.conf", r"port => (\d+)"),
    "fluent-bit": ("fluent-bit.yaml", r"listen: .*\n +port: (\d+)"),
    "fluentd": ("fluentd.conf", r"\n  port (\d+)"),
    "otel-collector": ("otelcol.yaml", r"endpoint: 0\.0\.0\.0:(\d+)"),
    "vector": ("vector.yaml", r"address: 0\.0\.0\.0:(\d+)"),
}


@pytest.mark.parametrize("name", LISTENS)
def test_a_sink_listens_where_envoy_sends(name: str) -> None:
    file, pattern = LISTENS[name]
    (port,) = re.findall(pattern, (SINKS / name / file).read_text(encoding="utf-8"))
    (cluster,) = example(name)["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"]["port_value"] == int(port)


def test_a_sinks_own_configuration_can_be_read() -> None:
    files = [path for path in SINKS.glob("*/*") if path.suffix in (".yaml", ".json")]
    assert len(files) > len(EXAMPLES)
    for path in files:
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path


def test_meters_count_what_events_have(gateway: Gateway) -> None:
    model = gateway.models["openmeter"]
    stored = len(model.records)
    gateway.call("openmeter", **{"x-cost-feature": "search"})
    gateway.stack.wait(lambda: len(model.records) > stored, 10, f"nothing stored, refused: {model.refusals}")
    event = list(model.events.values())[-1] if isinstance(model, OpenMeter) else {}
    assert event["subject"] == "sales"
    for meter in yaml.safe_load((SINKS / "openmeter" / "config.yaml").read_text(encoding="utf-8"))["meters"]:
        places = [*meter["groupBy"].values(), *filter(None, [meter.get("valueProperty")])]
        assert meter["eventType"] == event["type"]
        assert {place.removeprefix("$.") for place in places} <= set(event["data"])


def as_msgpack(value: Any) -> Any:
    """A record as MessagePack has it: amounts that are no integers of 64 bits are strings."""
    if isinstance(value, dict):
        return {name: as_msgpack(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_msgpack(one) for one in value]
    whole = isinstance(value, int) and abs(value) < 1 << 63
    return value if not isinstance(value, (int, Decimal)) or whole else str(value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_record_arrives_whole_also_where_the_sink_was_busy(gateway: Gateway, name: str) -> None:
    model = gateway.models[name]
    before, stored = len(model.requests), len(model.records)
    model.faults.append(model.busy)
    id = gateway.call(name)
    gateway.stack.wait(lambda: len(model.records) > stored, 10, f"nothing stored, refused: {model.refusals}")
    first, again = model.requests[before:]
    assert (first.status, again.status) == (model.busy.status, model.success.status) and not model.refusals
    assert first.head.header("idempotency-key") == again.head.header("idempotency-key")
    assert again.head.header("host") == example(name)["collector"]["authority"]
    (record,) = model.records[stored:]
    expected = logged_as(gateway.stack, id)
    if isinstance(model, OpenTelemetry):
        assert (record["attributes"]["llm.cost.id"], record["attributes"]["llm.cost.department"]) == (id, "sales")
    else:
        assert record == (as_msgpack(expected) if name == "fluentd" else expected)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_batch_stays_within_what_the_sink_takes(name: str) -> None:
    collector, model = example(name)["collector"], MODELS[name]
    records, size = collector.get("max_batch", 500), collector.get("max_batch_bytes", 4_000_000)
    assert model.most_records is None or records <= model.most_records
    # Around each record there is at most what CloudEvents and OTLP put there.
    times = {"otlp_json": 3, "cloudevents": 2}.get(collector["format"], 1)
    assert size * times + records + 2 <= model.most_bytes


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_finds_nothing_wrong_with_an_example(tmp_path: Path, name: str) -> None:
    command = ROOT / "dist" / "tollgate"
    assert command.exists(), f"{command} is missing: run `make command`"
    bootstrap = envoy_config.load()
    listener = envoy_config.listener(bootstrap)
    bootstrap["static_resources"]["listeners"] = []
    add(bootstrap, name, example(name), listener)
    envoy_config.write(tmp_path / "envoy.json", bootstrap)
    done = subprocess.run([command, "check", tmp_path / "envoy.json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith(": 0 errors, 0 warnings\n"), done.stdout + done.stderr


def test_two_calls_never_look_like_one_to_loki(gateway: Gateway) -> None:
    model = gateway.models["loki"]
    stored = len(model.records)
    ids = {gateway.call("loki") for _ in range(3)}
    gateway.stack.wait(lambda: len(model.records) >= stored + 3, 10, "not stored")
    bodies = {record["attributes"]["llm.cost.id"]: record["body"]["stringValue"] for record in model.records[stored:]}
    assert set(bodies) == ids and len(set(bodies.values())) == 3, bodies


def test_what_an_opentelemetry_collector_takes_in_part_is_not_sent_again(gateway: Gateway) -> None:
    model = gateway.models["otel-collector"]
    before = len(model.requests)

    def rejected() -> float:
        return gateway.stack.metric("tollgate_records_total", result="dropped_rejected")

    dropped = rejected()
    partly = b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}'
    model.faults.append(Answer(200, (("content-type", "application/json"),), partly))
    gateway.call("otel-collector")
    gateway.stack.wait(lambda: rejected() == dropped + 1, 10, "nothing was counted as rejected")
    sent = gateway.call("otel-collector")
    gateway.stack.wait(lambda: len(model.requests) >= before + 2, 10, "not sent")
    first, second = model.requests[before:]
    assert first.head.header("idempotency-key") != second.head.header("idempotency-key")
    assert model.records[-1]["attributes"]["llm.cost.id"] == sent


def test_a_key_is_in_no_dump_of_the_configuration(gateway: Gateway) -> None:
    dump = gateway.stack.admin("/config_dump?include_eds")
    keys = [model.secret[1] for model in gateway.models.values() if model.secret]
    assert len(keys) >= 4 and not [key for key in keys if key in dump]


# ClickHouse


@dataclass
class Stored:
    """A ClickHouse with the records of a gateway whose batches had to be sent twice."""

    database: ClickHouse
    behind: LosesAnswers
    usage: list[Record]
    rows: int
    window: bool


def clickhouse(kind: str, directory: Path) -> tuple[ClickHouse, str]:
    """A ClickHouse of this kind and the tables for it."""
    schema = SCHEMA.read_text(encoding="utf-8")
    if kind == "18.16":
        _, password = MODELS["clickhouse"].secret or ("", "")
        return ClickHouse.server(tool("clickhouse.sh"), directory, password), of_2018(schema)
    return ClickHouse.library(tool("chdb.sh"), directory), schema


@pytest.fixture(scope="module", params=["18.16", "today's"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """Calls and alerts of two workers; each batch is stored, and the answers to the first four are lost."""
    directory = tmp_path_factory.mktemp("clickhouse")
    database, schema = clickhouse(request.param, directory)
    with ExitStack() as running:
        running.enter_context(database).create(schema)
        # A merge would make one row of two, sooner or later: what is read has to be right before.
        database.query("SYSTEM STOP MERGES tollgate.all_records")
        behind = running.enter_context(LosesAnswers(database.port, lose=4))

        def edit(bootstrap: Bootstrap) -> None:
            config, parts = envoy_config.filter_config(bootstrap), redirected("clickhouse", behind.port, directory)
            config["collector"] = parts["collector"] | {"max_batch": 3}
            bootstrap["static_resources"]["clusters"] += parts["clusters"]
            bootstrap["static_resources"]["secrets"] = parts["secrets"]
            alert = {"name": "alert", "match": {"department": "sales"}, "limit_usd": "0.002", "window": "month"}
            config["budgets"] = [alert | {"alert_at": [50, 100], "on_exceeded": "allow"}]

        stack = running.enter_context(Stack(edit))
        for number in range(12):
            headers = {"x-cost-department": ["sales", "support"][number % 2], "x-cost-tag-tier": "gold"}
            assert stack.client.chat(headers=headers).status == 200
        sent = 12 + 2
        stack.wait(lambda: stack.metric("tollgate_records_total", result="sent") >= sent, 20, "not sent")
        assert not behind.refusals and not behind.lose
        rows = sum(body.count(b"\n") for body in behind.stored)
        usage = [record for record in logged(stack) if record["type"] == "usage"]
        yield Stored(database, behind, usage, rows, "deduplication_window" in schema)


def test_clickhouse_reads_one_row_a_call_whatever_was_sent_twice(stored: Stored) -> None:
    assert stored.rows > len(stored.usage) + 2, "nothing was sent twice"
    counts = stored.database.query("SELECT count(), uniqExact(id), sum(cost_picousd) FROM tollgate.records")
    assert counts == f"12\t12\t{sum(record['cost_picousd'] for record in stored.usage)}"
    ids = stored.database.query("SELECT id FROM tollgate.records ORDER BY id").split()
    assert ids == sorted(record["id"] for record in stored.usage)
    assert stored.database.query("SELECT count(), uniqExact(id) FROM tollgate.budget_records") == "2\t2"


def test_a_repeated_batch_is_dropped_by_its_bytes_and_one_cut_differently_by_its_ids(stored: Stored) -> None:
    database, everything = stored.database, "SELECT count() FROM tollgate.all_records"
    known = int(database.query(everything))
    # Where there is no window, the second layer is all there is.
    assert known == (14 if stored.window else stored.rows)
    path, everyone = example("clickhouse")["collector"]["path"], b"".join(stored.behind.stored)
    assert stored.behind.hand_on(path, everyone, {}) == (200, "")
    assert int(database.query(everything)) > known
    assert database.query("SELECT count(), uniqExact(id) FROM tollgate.records") == "12\t12"


def test_what_the_access_log_said_before_the_end_gives_way_to_it(stored: Stored) -> None:
    sent = [json.loads(line) for body in stored.behind.stored for line in body.splitlines()]
    call = next(record for record in sent if record["type"] == "usage")
    early = {name: value for name, value in call.items() if "cost" not in name} | {"end_reason": "provisional"}
    path = example("clickhouse")["collector"]["path"]
    assert stored.behind.hand_on(path, json.dumps(early).encode(), {}) == (200, "")
    found = stored.database.query(f"SELECT end_reason, cost_picousd FROM tollgate.records WHERE id = '{call['id']}'")
    assert found == f"complete\t{call['cost_picousd']}"


def as_stored(value: Any) -> Any:
    """A field of a record as a row of today's ClickHouse has it: lists of charges have what is left out, too."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{"multiplier": None} | one for one in value]
    return value


# The old one has no types for all of them.
@pytest.mark.parametrize("stored", ["today's"], indirect=True)
def test_every_field_of_a_record_is_in_its_row(stored: Stored) -> None:
    rows = {row["id"]: row for row in stored.database.rows("SELECT * FROM tollgate.records")}
    for record in stored.usage:
        row = rows[record["id"]]
        assert row.pop("ts") == record.pop("ts").replace("T", " ").removesuffix("Z").ljust(26, "0")
        for name, value in record.items():
            assert row[name] == as_stored(value), name
        left_out = {name: value for name, value in row.items() if name not in record}
        assert not [name for name, value in left_out.items() if value not in (None, "", [], {})], left_out


def test_the_tables_have_a_column_for_each_field() -> None:
    columns = set(re.findall(r"^    (\w+) [A-Z]", SCHEMA.read_text(encoding="utf-8"), re.MULTILINE))
    fields = set()
    for file, structs in (("record.rs", ["UsageRecord"]), ("record/budget.rs", ["BudgetRecord", "StandingFields"])):
        source = (ROOT / "src" / file).read_text(encoding="utf-8")
        for name in structs:
            (body,) = re.findall(rf"pub struct {name} \{{(.*?)\n\}}", source, re.DOTALL)
            fields |= set(re.findall(r"^    pub (\w+):", body, re.MULTILINE))
    fields -= {"record_type", "standing", "rendered"}
    assert len(fields) > 90 and fields | {"type", "is_final"} == columns


# An OpenTelemetry collector


def debug(value: Any) -> str:
    """A value as rotel prints it."""
    if isinstance(value, bool):
        return f"Bool({str(value).lower()})"
    if isinstance(value, int):
        return f"Int({value})"
    if isinstance(value, Decimal):
        return f"Double({value.normalize():f})"
    if isinstance(value, list):
        return f"Slice({', '.join(debug(one) for one in value)})"
    if isinstance(value, dict):
        return f"Map({', '.join(f'{name}:{debug(one)}' for name, one in value.items())})"
    return f"Str({value})"


def test_a_collector_decodes_every_field_of_a_record(start: Start, tmp_path: Path) -> None:
    rotel, port, output = tool("rotel.sh"), free_port(), tmp_path / "rotel.log"
    tie = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    with output.open("wb") as log:
        process = subprocess.Popen([
            *tie, rotel, "start", "--otlp-http-endpoint", f"127.0.0.1:{port}",
            "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}", "--exporter", "blackhole",
            "--debug-log", "logs", "--debug-log-verbosity", "detailed",
        ], stdout=log, stderr=log)
    try:
        def edit(bootstrap: Bootstrap) -> None:
            collector = example("otel-collector")["collector"] | {"cluster": "cost_collector", "flush_ms": 20}
            envoy_config.filter_config(bootstrap)["collector"] = collector
            envoy_config.socket_address(bootstrap, "cost_collector")["port_value"] = port

        stack = start(edit, concurrency=1)
        trace, span = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
        reply = stack.client.chat(stream=True, headers={
            "traceparent": f"00-{trace}-{span}-01", "x-cost-user": "u-1", "x-cost-tag-tier": "gold",
            "x-cost-team": "\xe9\xe8",
        })
        record = logged_as(stack, reply.headers["x-tollgate-id"])
        stack.wait(lambda: stack.metric("tollgate_records_total", result="sent") == 1, 10, output.read_text())
        stack.wait(lambda: "Flags:" in output.read_text(), 10, "not printed")
    finally:
        process.terminate()
        process.wait(10)
    said = output.read_text(encoding="utf-8")
    found = dict(re.findall(r"^ +-> ([^:]+): (.*)$", said, re.MULTILINE))
    assert found.pop("service.name") == "Str(tollgate)" and found.pop("service.version").startswith("Str(")
    for name, field in (("service.instance.id", "instance"), ("llm.cost.gateway", "gateway")):
        assert found.pop(name) == debug(record[field])
    for line in (f"Trace ID       : {trace}", f"Span ID        : {span}", "EventName: llm.cost.usage"):
        assert line in said
    began = datetime.datetime.fromisoformat(record["ts"])
    micros = (began - datetime.datetime.fromtimestamp(0, datetime.timezone.utc)) // datetime.timedelta(microseconds=1)
    assert f"\nTimestamp: {micros * 1000}\n" in said
    for field in ("ts", "instance", "gateway", "trace_id", "span_id"):
        del record[field]
    assert found == {name: debug(value) for name, value in attributes(record).items()}


# OpenTelemetry's names of a record's fields.
NAMES = {
    "operation": "gen_ai.operation.name", "provider": "gen_ai.provider.name", "request_model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model", "response_id": "gen_ai.response.id", "stream": "gen_ai.request.stream",
    "max_output_tokens": "gen_ai.request.max_tokens", "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens", "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens", "session": "gen_ai.conversation.id", "user": "user.id",
    "status": "http.response.status_code", "cost_usd": "llm.cost.usd", "cost_picousd": "llm.cost.picousd",
}


def attributes(record: Record) -> Record:
    """What becomes of a record's fields in OpenTelemetry."""
    found: Record = {}
    for field, value in record.items():
        if field == "tags":
            found |= {f"llm.cost.tags.{name}": one for name, one in value.items()}
        elif field == "finish_reason":
            found["gen_ai.response.finish_reasons"] = [value]
        elif field == "ttft_ms":
            found["gen_ai.response.time_to_first_chunk"] = Decimal(value) / 1000
        else:
            found[NAMES.get(field, f"llm.cost.{field}")] = value
    return found
