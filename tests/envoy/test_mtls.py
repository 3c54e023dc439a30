"""Callers that Envoy knows by their certificates, through a real TLS listener: who a certificate says they are is a
dimension, and whose headers count (`attribution.trust_headers`) is decided by it, also behind a gateway of our own."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Start
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import envoy_config
from support.audit import Record, assert_says, fresh
from support.client import TIMEOUT_SECONDS
from support.envoy_config import Bootstrap
from support.stack import Stack

SOCKETS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
CHAT = "/v1/chat/completions"
# By what a gateway is known: the name in the certificate that a mesh gives it, or the certificate's subject.
BY_URI = {"property": ["connection", "uri_san_peer_certificate"], "matches": ["spiffe://corp.test/gateway/*"]}
BY_SUBJECT = {"property": ["connection", "subject_peer_certificate"], "matches": ["CN=edge-*,O=Corp"]}
# Each of these sources could name an owner; the property is Envoy's word, the others are the caller's.
DIMENSIONS = {
    "caller": {"from": [{"property": ["connection", "subject_peer_certificate"]}]},
    "team": {"from": [{"baggage": "team"}]},
    "user": {"from": [{"body": "metadata.user_id"}]},
    "department": {"from": [{"header": "x-cost-department"}], "default": "shared"},
}


# Certificates


@dataclass(frozen=True)
class Peer:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates of the organisation Corp, valid today."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.key = directory, ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        authority = x509.BasicConstraints(ca=True, path_length=0)
        self.file = directory / f"{name}.pem"
        certificate = self._sign(self.subject, self.key, [(authority, True)])
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, alternative: x509.GeneralName) -> Peer:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Corp"), x509.NameAttribute(NameOID.COMMON_NAME, name),
        ])
        certificate = self._sign(subject, key, [(x509.SubjectAlternativeName([alternative]), False)])
        stem = f"{self.file.stem}-{name}"
        peer = Peer(self.directory / f"{stem}.pem", self.directory / f"{stem}.key")
        peer.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        peer.key.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ))
        return peer

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[tuple[x509.ExtensionType, bool]]
    ) -> x509.Certificate:
        now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(
            self.subject, subject, key.public_key(), x509.random_serial_number(), now - day, now + day
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())


class Pki:
    """The corporation's certificates, and one of the same names by an authority that nobody trusts."""

    def __init__(self, directory: Path) -> None:
        self.authority, stranger = Authority(directory, "corp"), Authority(directory, "stranger")
        edge = "edge-eu", x509.UniformResourceIdentifier("spiffe://corp.test/gateway/edge-eu")
        self.server = self.authority.issue("gateway", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        self.edge = self.authority.issue(*edge)
        self.app = self.authority.issue("batch", x509.UniformResourceIdentifier("spiffe://corp.test/app/batch"))
        self.forged = stranger.issue(*edge)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


# Gateways


def tls(own: Peer, pki: Pki, kind: str, **more: Any) -> dict[str, Any]:
    """A transport socket that shows `own` and takes the corporation's certificates."""
    certificate = {"certificate_chain": {"filename": str(own.certificate)}, "private_key": {"filename": str(own.key)}}
    common = {
        "tls_certificates": [certificate],
        "validation_context": {"trusted_ca": {"filename": str(pki.authority.file)}},
    }
    config = {"@type": f"{SOCKETS}.{kind}", "common_tls_context": common, **more}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def behind_tls(pki: Pki, trust: Any, *, required: bool = True) -> Callable[[Bootstrap], None]:
    """A gateway that asks its callers for certificates."""
    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        (chain,) = envoy_config.listener(bootstrap)["filter_chains"]
        chain["transport_socket"] = tls(
            pki.server, pki, "DownstreamTlsContext", require_client_certificate=required
        )
        # What a trusted caller says goes on, so that the provider's side shows whom the filter believed.
        envoy_config.filter_config(bootstrap)["attribution"] = {
            "trust_headers": trust, "forward_headers": True, "dimensions": DIMENSIONS,
        }

    return edit


@pytest.fixture(scope="module")
def central(envoy: str, pki: Pki) -> Iterator[Stack]:
    """Lets nobody in without a certificate, and believes those of gateways."""
    with Stack(behind_tls(pki, BY_URI), envoy=envoy) as stack:
        yield stack


def call(connection: http.client.HTTPConnection) -> str:
    """A chat with every word that a caller can say of itself; returns the value of its header x-mark."""
    mark = fresh()
    said = {
        "content-type": "application/json", "x-mark": mark, "x-cost-department": "sales", "x-cost-feature": "search",
        "x-cost-tag-customer": "acme", "x-cost-tag-caller": "CN=edge-eu,O=Corp", "baggage": "team=apollo,trace=on",
    }
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "metadata": {"user_id": "u-7"}}
    with closing(connection):
        connection.request("POST", CHAT, json.dumps(body), said)
        answer = connection.getresponse()
        answer.read()
    # Whether its words count or not, the call passes.
    assert answer.status == 200
    return mark


@dataclass(frozen=True)
class Outcome:
    """A call's record, and the headers that the provider was sent."""

    record: Record
    arrived: dict[str, str]


def outcome(stack: Stack, mark: str) -> Outcome:
    """What this gateway made of a call."""
    (request,) = [r for r in stack.replay.requests if ["x-mark", mark] in r["headers"]]
    arrived = {name.lower(): value for name, value in request["headers"]}

    # The record of a caller whose words do not count has no session to find it by.
    def is_ours(record: Record) -> bool:
        return record["request_id"] == arrived["x-request-id"]

    (record,) = stack.sink.wait_for(1, where=is_ours)
    return Outcome(record, arrived)


def ask(stack: Stack, pki: Pki, peer: Peer | None) -> Outcome:
    """The same as a client of the TLS listener with that certificate, or with none."""
    context = ssl.create_default_context(cafile=str(pki.authority.file))
    if peer is not None:
        context.load_cert_chain(peer.certificate, peer.key)
    address = "127.0.0.1", stack.client.port
    return outcome(stack, call(http.client.HTTPSConnection(*address, timeout=TIMEOUT_SECONDS, context=context)))


# What a certificate is good for

BELIEVED = {
    "department": "sales", "feature": "search", "team": "apollo", "user": "u-7",
    "notes": ["x-cost-tag-caller: not_a_source"],
}
IGNORED = {
    "department": "shared", "feature": None, "team": None, "user": None,
    "notes": [
        "x-cost-department: untrusted", "x-cost-feature: untrusted", "x-cost-tag-customer: untrusted",
        "x-cost-tag-caller: untrusted", "baggage team: untrusted", "body metadata.user_id: untrusted",
    ],
}


def test_the_words_of_another_gateway_count_and_go_on(central: Stack, pki: Pki) -> None:
    believed = ask(central, pki, pki.edge)
    assert_says(believed.record, BELIEVED | {"tags": {"caller": "CN=edge-eu,O=Corp", "customer": "acme"}})
    assert believed.record["attribution_source"] == {
        "department": "header", "feature": "header", "team": "baggage", "user": "body",
        "tags.caller": "property", "tags.customer": "header", "workload": "inferred",
    }
    assert believed.arrived["x-cost-department"] == "sales"
    assert believed.arrived["x-cost-feature"] == "search"
    assert believed.arrived["baggage"] == "team=apollo,trace=on"


def test_the_words_of_any_other_caller_are_ignored_noted_counted_and_taken_off(central: Stack, pki: Pki) -> None:
    def dropped() -> float:
        return central.metric("tollgate_dropped_values_total", reason="untrusted")

    before = dropped()
    ignored = ask(central, pki, pki.app)
    assert_says(ignored.record, IGNORED | {"tags": {"caller": "CN=batch,O=Corp"}, "decision": "allowed"})
    assert ignored.record["attribution_source"] == {
        "department": "default", "tags.caller": "property", "workload": "inferred",
    }
    assert dropped() - before == len(IGNORED["notes"])
    # Nor may the next gateway believe it; what others need stays.
    assert not [name for name in ignored.arrived if name.startswith("x-cost-")]
    assert ignored.arrived["baggage"] == "trace=on"


@pytest.mark.parametrize("peer", [None, "forged"])
def test_a_caller_without_a_certificate_of_the_authority_does_not_get_in(central: Stack, pki: Pki, peer: str | None) -> None:
    recorded, sent = len(central.sink.records), len(central.replay.requests)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(central, pki, peer and getattr(pki, peer))
    ask(central, pki, pki.app)
    # Only the call after it left anything.
    assert len(central.replay.requests) == sent + 1
    assert len(central.sink.records) == recorded + 1


@pytest.mark.parametrize(
    ("trust", "trusted"),
    [(BY_URI, ["edge"]), (BY_SUBJECT, ["edge"]), ("never", []), ("always", [None, "app", "edge"])],
    ids=["uri", "subject", "never", "always"],
)
def test_whoever_need_not_show_a_certificate_and_does_not_is_believed_only_where_everybody_is(
    start: Start, pki: Pki, trust: Any, trusted: list[str | None]
) -> None:
    stack = start(behind_tls(pki, trust, required=False))
    for peer, subject in ((None, None), ("app", "CN=batch,O=Corp"), ("edge", "CN=edge-eu,O=Corp")):
        record = ask(stack, pki, peer and getattr(pki, peer)).record
        assert_says(record, BELIEVED if peer in trusted else IGNORED)
        assert record.get("tags", {}).get("caller") == subject


# Behind a gateway of our own


def edge_of(central: Stack, pki: Pki, own: Peer) -> Callable[[Bootstrap], None]:
    """A gateway that lets attribution go on to `central`, by TLS and with the certificate `own`."""
    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.filter_config(bootstrap)["attribution"] = {"forward_headers": True}
        envoy_config.socket_address(bootstrap, "llm_upstream")["port_value"] = central.client.port
        envoy_config.cluster(bootstrap, "llm_upstream")["transport_socket"] = tls(own, pki, "UpstreamTlsContext")

    return edit


@pytest.mark.parametrize(("own", "wanted"), [("edge", BELIEVED), ("app", IGNORED)])
def test_what_a_client_says_passes_a_gateway_as_far_as_the_next_one_trusts_it(
    central: Stack, envoy: str, start: Start, pki: Pki, own: str, wanted: dict[str, Any]
) -> None:
    edge = start(edge_of(central, pki, getattr(pki, own)), envoy=envoy)
    mark = call(http.client.HTTPConnection("127.0.0.1", edge.client.port, timeout=TIMEOUT_SECONDS))
    assert_says(outcome(central, mark).record, wanted)
    # The gateway in front believes everybody, as it was told.
    assert_says(edge.sink.wait_for(1)[0], {"department": "sales", "feature": "search"})
