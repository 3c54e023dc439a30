"""Who a call is charged to, through real Envoy: the table that the core and the compiled module are tested with, claims
that Envoy itself has verified, refusals, and signatures that survive the removal of headers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import jwt
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import Start
from cryptography.hazmat.primitives.asymmetric import rsa
from support import envoy_config, variants
from support.audit import assert_says, fresh, one_record
from support.envoy_config import Bootstrap
from support.stack import Stack
from support.variants import FILTERS
from support.wire import Wire, header, request_head

TABLE = json.loads((Path(__file__).resolve().parents[1] / "attribution.json").read_text(encoding="utf-8"))
SECRETS = ("sk-support", "sk-stranger", "sk-nameless")
ALIASES = {"x-owner-team", "helicone-property-feature", "x-project", "x-groups", "x-outcome"}
CHAT = "/v1/chat/completions"


def attributing(section: dict[str, Any]) -> Any:
    """An edit that makes `section` the configuration's attribution."""
    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.filter_config(bootstrap)["attribution"] = section

    return edit


def known_caller(bootstrap: Bootstrap) -> None:
    """The table's configuration behind a filter that knows something of the caller."""
    attributing(TABLE["attribution"])(bootstrap)
    values = [{"metadata_namespace": "caller", "value": TABLE["metadata"]}]
    config = {"@type": f"{FILTERS}.set_metadata.v3.Config", "metadata": values}
    envoy_config.http_filters(bootstrap)[:0] = [
        {"name": "caller", "typed_config": config}, variants.deny_filter(),
    ]


@pytest.fixture(scope="module")
def known(envoy: str) -> Iterator[Stack]:
    with Stack(known_caller, envoy=envoy) as stack:
        # Not even at the lowest level may the filter say what is secret.
        stack.admin("/logging?wasm=trace", "POST")
        yield stack
        assert not [secret for secret in SECRETS if secret in stack.log()]


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["about"])
def test_every_call_is_charged_as_the_table_says(known: Stack, case: dict[str, Any]) -> None:
    session, body = fresh(), json.dumps(case["body"]).encode()
    sent = [(b"x-cost-session", session.encode()), (b"x-mark", session.encode())]
    sent += [(name.encode(), value.encode("latin-1")) for name, value in case["headers"]]
    with Wire(known.client.port) as wire:
        wire.send(request_head(case["path"].encode(), sent, length=len(body)) + body)
        answer = wire.read_until(b"\r\n\r\n")
    record = one_record(known, session)
    assert header(answer, b"x-tollgate-id") == record["id"].encode()
    assert_says(record, case["expect"])
    assert not [secret for secret in SECRETS if secret in json.dumps(record)]
    (arrived,) = [r for r in known.replay.requests if ["x-mark", session] in r["headers"]]
    left = {name.lower() for name, _ in arrived["headers"]}
    assert not [name for name in left if name.startswith("x-cost-") or name in ALIASES]
    needed = {"authorization", "x-api-key", "api-key", "baggage", "x-trace-id"}
    assert left & needed == {name.lower() for name, _ in case["headers"]} & needed


def test_properties_of_a_call_that_another_filter_ended_are_recorded(known: Stack) -> None:
    session = fresh()
    reply = known.client.chat(headers={"x-cost-session": session, "x-test-deny": "1", "x-cost-feature": "f"})
    assert reply.status == 403
    wanted = {"feature": "f", "end_reason": "local_reply", "tags": {"tenant": "acme", "plan": "7", "vip": "true"}}
    assert_says(one_record(known, session), wanted)


# What only Envoy knows

def routed(bootstrap: Bootstrap) -> None:
    """Dimensions from the route's metadata and the virtual host; only some routes have any."""
    attributing({
        "dimensions": {
            "project": {"from": [{"property": ["xds", "route_metadata", "filter_metadata", "owner", "project"]},
                                 {"header": "x-cost-project"}]},
            "team": {"from": [{"header": "x-cost-team"},
                              {"property": ["xds", "route_metadata", "filter_metadata", "owner", "team"]}]},
            "business_unit": {"from": [{"property": ["xds", "virtual_host_name"]}]},
        },
    })(bootstrap)
    hosts = envoy_config.connection_manager(bootstrap)["route_config"]["virtual_hosts"]
    owned = variants.to("apollo") | {"metadata": {"filter_metadata": {"owner": {"project": "apollo", "team": "guidance"}}}}
    hosts[0]["routes"].insert(0, owned)
    hosts[0]["name"] = "emea"


def test_route_metadata_and_the_virtual_host_are_dimensions(start: Start, envoy: str) -> None:
    stack = start(routed, envoy=envoy)
    spoof = {"x-cost-project": "gemini", "x-cost-business-unit": "apac"}
    note = "x-cost-business-unit: not_a_source"
    for path, more, wanted in [
        (f"/apollo{CHAT}", {}, {"project": "apollo", "team": "guidance", "sources": ("property", "property")}),
        (f"/apollo{CHAT}", {"x-cost-team": "t"}, {"project": "apollo", "team": "t", "sources": ("property", "header")}),
        (CHAT, {"x-cost-team": "t"}, {"project": "gemini", "team": "t", "sources": ("header", "header")}),
    ]:
        session = fresh()
        body = json.dumps({"model": "gpt-4o", "messages": []}).encode()
        reply = stack.client.send("POST", path, body, {"x-cost-session": session} | spoof | more)
        assert reply.status == 200
        record, sources = one_record(stack, session), wanted.pop("sources")
        assert_says(record, wanted | {"business_unit": "emea", "notes": [note]})
        said = record["attribution_source"]
        assert (said["project"], said["team"], said["business_unit"]) == (*sources, "property")


# What goes on to another gateway

def test_baggage_goes_on_without_what_is_overruled_here(start: Start, envoy: str) -> None:
    (locked,) = [key for key in TABLE["attribution"]["keys"] if key.get("locked")]
    department = {"from": [{"header": "x-cost-department"}, {"baggage": "department"}]}
    stack = start(attributing({
        "dimensions": {"department": department, "tenant": {"default": "acme"}, "team": {"from": [{"baggage": "team"}]}},
        "keys": [locked],
    }), envoy=envoy)
    for key, left in [("sk-support-1", ["a=b,team=t"]), ("sk-stranger", ["department=sales,a=b", "team=t"])]:
        session = fresh()
        sent = [(b"x-cost-session", session.encode()), (b"x-mark", session.encode()), (b"x-api-key", key.encode()),
                (b"baggage", b"department=sales,a=b"), (b"baggage", b"team=t")]
        with Wire(stack.client.port) as wire:
            wire.send(request_head(CHAT.encode(), sent, length=2) + b"{}")
            wire.read_until(b"\r\n\r\n")
        record = one_record(stack, session)
        known = key == "sk-support-1"
        assert_says(record, {
            "team": "t", "department": "customer-success" if known else "sales",
            "notes": ["baggage department: locked"] if known else None,
        })
        (arrived,) = [r for r in stack.replay.requests if ["x-mark", session] in r["headers"]]
        assert [value for name, value in arrived["headers"] if name.lower() == "baggage"] == left


# A JWT that Envoy has verified

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS = ["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "verified"]


def verified(bootstrap: Bootstrap) -> None:
    """Envoy checks every call's JWT; two of its claims are dimensions, one of them by the configuration's own name."""
    attributing({
        "dimensions": {
            "tenant": {"from": [{"property": [*CLAIMS, "tenant"]}]},
            "seats": {"from": [{"property": [*CLAIMS, "seats"]}]},
            "first-group": {"from": [{"property": [*CLAIMS, "groups", "0"]}]},
            "project": {"from": [{"property": [*CLAIMS, "claim"]}, {"header": "x-cost-project"}]},
            "department": {"from": [{"property": [*CLAIMS, "org", "department"]}, {"header": "x-cost-department"}]},
        },
    })(bootstrap)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "k", "alg": "RS256"}
    provider = {
        "issuer": "https://issuer.test", "local_jwks": {"inline_string": json.dumps({"keys": [public]})},
        "payload_in_metadata": "verified", "forward": True,
    }
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}]
    config = {"@type": f"{FILTERS}.jwt_authn.v3.JwtAuthentication", "providers": {"issuer": provider}, "rules": rules}
    envoy_config.http_filters(bootstrap).insert(0, {"name": "envoy.filters.http.jwt_authn", "typed_config": config})


def token(key: Any = KEY, **claims: Any) -> str:
    claims = {"iss": "https://issuer.test", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "k"})


@pytest.fixture(scope="module")
def tokens(envoy: str) -> Iterator[Stack]:
    with Stack(verified, envoy=envoy) as stack:
        yield stack


def test_claims_of_a_verified_jwt_are_dimensions_and_the_token_is_no_api_key(start: Start, envoy: str) -> None:
    stack = start(verified, envoy=envoy)

    def ask(bearer: str, **headers: str) -> tuple[int, dict[str, Any]]:
        session = fresh()
        sent = {"x-cost-session": session, "authorization": f"Bearer {bearer}", **headers}
        return stack.client.chat(headers=sent).status, one_record(stack, session)

    claims = {"tenant": "acme", "seats": 25, "org": {"department": "sales"}}
    spoof = {"x-cost-department": "marketing", "x-cost-tag-tenant": "globex"}
    status, record = ask(token(**claims), **spoof)
    assert status == 200
    assert_says(record, {
        "tags": {"tenant": "acme", "seats": "25"}, "department": "sales", "api_key": None,
        "notes": ["x-cost-tag-tenant: not_a_source"],
    })
    sources = {"department": "property", "tags.tenant": "property", "tags.seats": "property"}
    assert record["attribution_source"].items() >= sources.items()
    status, record = ask(token(tenant="Zürich"), **spoof)
    assert_says(record, {"tags": {"tenant": "Zürich"}, "department": "marketing"})
    assert record["attribution_source"]["department"] == "header"
    # A token of somebody else's making is refused by Envoy, and names nobody.
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    status, record = ask(token(other, **claims))
    assert status == 401
    assert_says(record, {"tags": None, "department": None, "end_reason": "local_reply", "status": 401})


@pytest.mark.parametrize(("claim", "value", "why"), [
    ("apollo", "apollo", None), (7, "7", None), (-7, "-7", None), (2.5, "2.5", None), (True, "true", None),
    (False, "false", None), (None, None, None), ("", None, None), (["apollo"], None, "not_text"),
    (["abcd"], None, "not_text"), ({"name": "apollo"}, None, "not_text"), ("x" * 129, None, "too_long"),
    ("a\nb", None, "not_text"), (2**60, None, "not_text"),
], ids=repr)
def test_a_claim_of_any_type_is_a_dimension_or_leaves_it_to_the_next_source(
    tokens: Stack, claim: Any, value: str | None, why: str | None
) -> None:
    session = fresh()
    bearer = token(claim=claim, groups=["blue", "green"])
    sent = {"x-cost-session": session, "authorization": f"Bearer {bearer}", "x-cost-project": "next"}
    assert tokens.client.chat(headers=sent).status == 200
    record = one_record(tokens, session)
    assert_says(record, {"project": value or "next", "tags": {"first-group": "blue"}, "api_key": None})
    assert record["attribution_source"]["project"] == ("property" if value else "header")
    noted = [note for note in record.get("notes", []) if note.endswith(f": {why}")]
    assert len(noted) == len(record.get("notes", [])) == (1 if why else 0)
    assert not tokens.metrics("tollgate_host_errors"), "what a token says is no fault of the host's"


# Calls that nobody can be charged for

STRICT = {
    "required": ["department", "user"], "on_missing": "reject",
    "dimensions": {"user": {"from": [{"header": "x-cost-user"}, {"body": "metadata.user_id"}]}},
}


def test_a_call_without_an_owner_is_refused_in_the_callers_dialect(start: Start, envoy: str) -> None:
    stack = start(attributing(STRICT), envoy=envoy)
    messages: Any = [{"role": "user", "content": "hello"}]
    model = "claude-haiku-4-5"
    with anthropic.Anthropic(base_url=stack.client.url, api_key="sk-test", max_retries=2) as client:
        sent = len(stack.replay.requests)
        session = fresh()
        with pytest.raises(anthropic.BadRequestError) as refused:
            headers = {"x-cost-session": session}
            client.messages.create(model=model, max_tokens=9, messages=messages, extra_headers=headers)
        assert "department is missing (send the header x-cost-department)" in refused.value.message
        assert_says(one_record(stack, session), {
            "status": 400, "decision": "refused", "error": "unattributed", "end_reason": "local_reply",
            "unattributed": ["department", "user"], "cost_picousd": 0,
        })
        assert len(stack.replay.requests) == sent, "it reached the provider, or was tried again"

        # What only the body can say is known at its end.
        session = fresh()
        with pytest.raises(anthropic.BadRequestError) as refused:
            headers = {"x-cost-session": session, "x-cost-department": "sales"}
            client.messages.create(model=model, max_tokens=9, messages=messages, extra_headers=headers)
        assert "user is missing (send the header x-cost-user)" in refused.value.message
        assert_says(one_record(stack, session), {"unattributed": ["user"], "decision": "refused", "status": 400})
        assert not [r for r in list(stack.replay.requests)[sent:] if r.get("body")], "a body reached the provider"

        session = fresh()
        headers = {"x-cost-session": session, "x-cost-department": "sales"}
        client.messages.create(
            model=model, max_tokens=9, messages=messages, extra_headers=headers, metadata={"user_id": "u-7"}
        )
        assert_says(one_record(stack, session), {"user": "u-7", "unattributed": None, "decision": "allowed"})
    assert stack.client.send("GET", "/v1/models").status == 200


# Signatures

CREDENTIALS = Credentials("AKIDEXAMPLE", "secret")
CONVERSE = "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"


def signature(auth: SigV4Auth, request: AWSRequest) -> str:
    canonical = auth.canonical_request(request)
    return str(auth.signature(auth.string_to_sign(request, canonical), request))


def test_a_signature_by_botocore_is_still_valid_when_headers_were_taken_off(start: Start, envoy: str) -> None:
    stack = start(attributing({"dimensions": {"team": {"from": [{"header": "x-team"}, {"header": "x-squad"}]}}}), envoy=envoy)
    session = fresh()
    body = json.dumps({"messages": [{"role": "user", "content": [{"text": "hello"}]}]}).encode()
    url = f"{stack.client.url}{CONVERSE}"
    signed = {"content-type": "application/json", "x-team": "signed", "x-cost-feature": "signed-too", "x-mark": session}
    request = AWSRequest("POST", url, data=body, headers=signed)
    SigV4Auth(CREDENTIALS, "bedrock", "eu-central-1").add_auth(request)
    late = {"x-cost-session": session, "x-cost-department": "sales", "x-squad": "unsigned"}
    reply = stack.client.send("POST", CONVERSE, body, dict(request.headers.items()) | late)
    assert reply.status == 200
    wanted = {"team": "signed", "feature": "signed-too", "department": "sales", "api_key": None, "api": "bedrock_converse"}
    assert_says(one_record(stack, session), wanted)

    # As AWS does: the signature is computed anew from what arrived, over the headers that it names.
    (arrived,) = [r for r in stack.replay.requests if ["x-mark", session] in r["headers"]]
    headers = {name.lower(): value for name, value in arrived["headers"]}
    assert not {"x-cost-session", "x-cost-department", "x-squad"} & headers.keys()
    names = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"x-team", "x-cost-feature"} <= set(names)
    again = AWSRequest(
        "POST", f"http://{headers['host']}{arrived['path']}", data=arrived["body"].encode(),
        headers={name: headers[name] for name in names},
    )
    again.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(CREDENTIALS, "bedrock", "eu-central-1")
    assert headers["authorization"].endswith(f"Signature={signature(auth, again)}")
    again.headers.replace_header("x-team", "another")
    assert not headers["authorization"].endswith(f"Signature={signature(auth, again)}"), "anything would do"


# On-boarding

def test_near_duplicates_and_unattributed_calls_are_counted_and_said_once(start: Start) -> None:
    stack = start(attributing({"required": ["feature"]}), concurrency=1)
    for feature in ("chatbot", "Chatbot", "chat-bot", "Chatbot", "search", None):
        session = fresh()
        headers = {"x-cost-session": session} | ({"x-cost-feature": feature} if feature else {})
        stack.client.chat(headers=headers)
        assert_says(one_record(stack, session), {"feature": feature, "unattributed": None if feature else ["feature"]})
    assert stack.metric("tollgate_near_duplicates_total", dimension="feature") == 2
    assert stack.metric("tollgate_unattributed_calls_total") == 1
    said = [line for line in stack.log().splitlines() if "is nearly" in line]
    assert len(said) == 2 and all('"chatbot"' in line and "attribution.normalise" in line for line in said), said


def test_normalised_and_pseudonymised_values_are_what_is_recorded_and_counted(start: Start) -> None:
    stack = start(attributing({
        "normalise": "lowercase_hyphen", "pseudonymise": ["user"], "pseudonym_key": "a key of some length",
    }))
    session = fresh()
    headers = {"x-cost-department": "Customer Success", "x-cost-user": "u-2077", "x-cost-gl-account": "GL_6420"}
    stack.client.chat(headers=headers | {"x-cost-session": session})
    # printf %s u-2077 | openssl dgst -sha256 -hmac 'a key of some length'
    wanted = {"department": "customer-success", "user": "96d97ca94beb557c", "gl_account": "GL_6420"}
    assert_says(one_record(stack, session), wanted)
    assert stack.metric("tollgate_cost_usd_nanos_total", department="customer-success") > 0
    assert "u-2077" not in stack.log()
