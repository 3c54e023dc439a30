"""The shipped gateway with additions that several tests share."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from support import envoy_config
from support.envoy_config import PROTOCOL_OPTIONS, Bootstrap

FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
BUFFER_BYTES = 1000
TIMEOUT = "0.3s"
BACK_OFF = {"base_interval": "0.01s"}


def deny_filter() -> dict[str, Any]:
    """RBAC that denies what has the header x-test-deny, with 403."""
    permission = {"header": {"name": "x-test-deny", "present_match": True}}
    policy = {"permissions": [permission], "principals": [{"any": True}]}
    rules = {"action": "DENY", "policies": {"test": policy}}
    return {"name": "deny", "typed_config": {"@type": f"{FILTERS}.rbac.v3.RBAC", "rules": rules}}


def buffer_filter(name: str) -> dict[str, Any]:
    """A filter that answers 413 to bodies above `BUFFER_BYTES`, on routes that enable it."""
    config = {"@type": f"{FILTERS}.buffer.v3.Buffer", "max_request_bytes": BUFFER_BYTES}
    return {"name": name, "disabled": True, "typed_config": config}


def small(name: str) -> dict[str, Any]:
    """Enables a buffer filter on a route."""
    limit = {"max_request_bytes": BUFFER_BYTES}
    return {"typed_per_filter_config": {name: {"@type": f"{FILTERS}.buffer.v3.BufferPerRoute", "buffer": limit}}}


def to(prefix: str, **route: Any) -> dict[str, Any]:
    """A route to the replay provider, or elsewhere, for paths that begin with /`prefix`."""
    return {"match": {"prefix": f"/{prefix}/"}, "name": prefix, "route": {"cluster": "llm_upstream", **route}}


def edges(bootstrap: Bootstrap) -> None:
    """Trailers pass; host nowhere.test has no route; a header is denied in front of the filter; and by first segment of
    the path: `before` and `after` answer 413 (in front of and behind the filter), `slow` and `idle` time out, `dead`
    refuses connections, `again` tries failures three times, `empty` has no host, `missing` no cluster, `direct` is
    answered by Envoy."""
    envoy_config.flush_soon(bootstrap)
    envoy_config.enable_trailers(bootstrap)
    envoy_config.close_soon(bootstrap)
    filters = envoy_config.http_filters(bootstrap)
    filters[:0] = [deny_filter(), buffer_filter("before")]
    filters.insert(-1, buffer_filter("after"))

    dead = {**envoy_config.cluster(bootstrap, "cost_collector"), "name": "dead"}
    # The discard port: nothing listens there.
    address = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9}}}
    dead["load_assignment"] = {
        "cluster_name": "dead", "endpoints": [{"lb_endpoints": [{"endpoint": address}]}],
    }
    # Ejecting the one host would turn "refused" into "no healthy host".
    del dead["outlier_detection"]
    empty = {"name": "empty", "type": "STATIC", "load_assignment": {"cluster_name": "empty"}}
    bootstrap["static_resources"]["clusters"] += [dead, empty]

    retries = {"retry_on": "connect-failure", "num_retries": 1}
    hosts = envoy_config.connection_manager(bootstrap)["route_config"]["virtual_hosts"]
    hosts[0]["routes"][:0] = [
        to("before") | small("before"),
        to("after") | small("after"),
        to("slow", timeout=TIMEOUT),
        to("idle", timeout="0s", idle_timeout=TIMEOUT),
        to("dead", cluster="dead", retry_policy=retries),
        to("again", retry_policy={"retry_on": "5xx", "num_retries": 2, "retry_back_off": BACK_OFF}),
        to("empty", cluster="empty"),
        to("missing", cluster="missing"),
        {"match": {"prefix": "/direct/"}, "name": "direct", "direct_response": {"status": 200}},
    ]
    # A cluster that comes and goes: checked per call, not at load.
    envoy_config.connection_manager(bootstrap)["route_config"]["validate_clusters"] = False
    hosts.append({"name": "nowhere", "domains": ["nowhere.test"]})


def without_filter(bootstrap: Bootstrap) -> None:
    """The same gateway without tollgate."""
    filters = envoy_config.http_filters(bootstrap)
    filters[:] = [f for f in filters if f["name"] != "tollgate"]


def without_injection(bootstrap: Bootstrap) -> None:
    """Nobody is asked for usage in a caller's place."""
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap)["metering"] = {"inject_include_usage": False}


def http2_upstream(bootstrap: Bootstrap) -> None:
    """The provider is reached by HTTP/2: a second listener turns that into the replay provider's HTTP/1."""
    envoy_config.flush_soon(bootstrap)
    envoy_config.close_soon(bootstrap)
    envoy_config.enable_trailers(bootstrap)
    # An abstract socket: it needs no port and no file.
    pipe = {"pipe": {"path": f"@tollgate-test-{uuid.uuid4().hex}"}}
    provider = envoy_config.cluster(bootstrap, "llm_upstream")
    upstream = copy.deepcopy(provider)
    provider["name"] = provider["load_assignment"]["cluster_name"] = "provider"
    endpoint = {"lb_endpoints": [{"endpoint": {"address": pipe}}]}
    upstream["load_assignment"]["endpoints"] = [endpoint]
    del upstream["upstream_connection_options"]
    options = upstream["typed_extension_protocol_options"][PROTOCOL_OPTIONS]
    options["explicit_http_config"] = {"http2_protocol_options": {}}
    bootstrap["static_resources"]["clusters"].append(upstream)

    manager = copy.deepcopy(envoy_config.connection_manager(bootstrap))
    manager |= {"codec_type": "HTTP2", "stat_prefix": "hop"}
    manager["http_filters"] = manager["http_filters"][-1:]
    del manager["access_log"]
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = "provider"
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    hop = {"name": "hop", "address": pipe, "filter_chains": [chain]}
    bootstrap["static_resources"]["listeners"].append(hop)


def http2_downstream(bootstrap: Bootstrap) -> None:
    """The filter's own clients speak HTTP/2: the listener in front only forwards, many calls to a connection."""
    http2_upstream(bootstrap)
    front, hop = (
        listener["filter_chains"][0]["filters"][0]["typed_config"]
        for listener in bootstrap["static_resources"]["listeners"]
    )
    hop["http_filters"], front["http_filters"] = front["http_filters"], hop["http_filters"]
    hop["access_log"] = front.pop("access_log")
