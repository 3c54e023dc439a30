"""Variations of envoy/envoy.yaml: every test and the demo run the shipped file with the least change.

The bootstrap is a plain dict; each function here finds or changes one thing in it, so that a test reads as what it
varies. The file is the only description of the gateway: nothing is rebuilt in Python.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ENVOY_YAML = ROOT / "envoy" / "envoy.yaml"
STRING_VALUE = "type.googleapis.com/google.protobuf.StringValue"
STRUCT = "type.googleapis.com/google.protobuf.Struct"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Bootstrap = dict[str, Any]


def load(path: Path = ENVOY_YAML) -> Bootstrap:
    """The shipped bootstrap."""
    with path.open(encoding="utf-8") as file:
        return yaml.safe_load(file)


def listener(bootstrap: Bootstrap) -> dict[str, Any]:
    """The LLM listener."""
    return bootstrap["static_resources"]["listeners"][0]


def connection_manager(bootstrap: Bootstrap) -> dict[str, Any]:
    """The HTTP connection manager's typed_config."""
    return listener(bootstrap)["filter_chains"][0]["filters"][0]["typed_config"]


def http_filters(bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The HTTP filter chain: tollgate first, router last."""
    return connection_manager(bootstrap)["http_filters"]


def route(bootstrap: Bootstrap) -> dict[str, Any]:
    """The one route (match, limits, action)."""
    return connection_manager(bootstrap)["route_config"]["virtual_hosts"][0]["routes"][0]


def plugin(bootstrap: Bootstrap) -> dict[str, Any]:
    """The filter's PluginConfig: failure policy, VM, configuration."""
    return next(f for f in http_filters(bootstrap) if f["name"] == "tollgate")["typed_config"]["config"]


def cluster(bootstrap: Bootstrap, name: str) -> dict[str, Any]:
    """A cluster by name: llm_upstream or cost_collector."""
    return next(c for c in bootstrap["static_resources"]["clusters"] if c["name"] == name)


def socket_address(bootstrap: Bootstrap, cluster_name: str) -> dict[str, Any]:
    """Where a cluster's only endpoint is."""
    endpoints = cluster(bootstrap, cluster_name)["load_assignment"]["endpoints"]
    return endpoints[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]


def ports(bootstrap: Bootstrap) -> dict[str, int]:
    """The ports of listener, admin, upstream and collector."""
    return {
        "listener": listener(bootstrap)["address"]["socket_address"]["port_value"],
        "admin": bootstrap["admin"]["address"]["socket_address"]["port_value"],
        "upstream": socket_address(bootstrap, "llm_upstream")["port_value"],
        "collector": socket_address(bootstrap, "cost_collector")["port_value"],
    }


def set_ports(bootstrap: Bootstrap, *, listener_port: int, admin: int, upstream: int, collector: int) -> None:
    """Move everything; 0 lets Envoy choose for listener and admin."""
    listener(bootstrap)["address"]["socket_address"]["port_value"] = listener_port
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = admin
    socket_address(bootstrap, "llm_upstream")["port_value"] = upstream
    socket_address(bootstrap, "cost_collector")["port_value"] = collector


def set_wasm(bootstrap: Bootstrap, path: Path) -> None:
    """The module to load."""
    plugin(bootstrap)["vm_config"]["code"]["local"]["filename"] = str(path)


def set_access_log(bootstrap: Bootstrap, path: Path) -> None:
    """Where the record log goes; the expression and the format stay the shipped ones."""
    connection_manager(bootstrap)["access_log"][0]["typed_config"]["path"] = str(path)


def add_plain_access_log(bootstrap: Bootstrap, path: Path) -> None:
    """A second log of every request, as JSON: what Envoy itself saw, to compare a record with."""
    form = {
        "id": "%RESP(x-tollgate-id)%", "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
        "request_id": "%REQ(X-REQUEST-ID)%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "bytes_sent": "%BYTES_SENT%", "duration_ms": "%DURATION%",
    }
    add_json_access_log(bootstrap, path, form)


def add_json_access_log(bootstrap: Bootstrap, path: Path, form: dict[str, str], *, calls_only: bool = False) -> None:
    """One more log, of every request or of those with a record."""
    logs = connection_manager(bootstrap)["access_log"]
    log: dict[str, Any] = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": form},
        },
    }
    logs.append(log | ({"filter": logs[0]["filter"]} if calls_only else {}))


def filter_config(bootstrap: Bootstrap) -> dict[str, Any]:
    """The filter's configuration, to change in place (while it is a Struct, as shipped)."""
    return plugin(bootstrap)["configuration"]["value"]


def set_filter_config(bootstrap: Bootstrap, value: dict[str, Any]) -> None:
    """Another configuration, as a Struct."""
    plugin(bootstrap)["configuration"] = {"@type": STRUCT, "value": value}


def set_filter_config_text(bootstrap: Bootstrap, text: str | None = None) -> None:
    """The configuration as a StringValue: `text`, or the current Struct as JSON."""
    if text is None:
        text = json.dumps(filter_config(bootstrap))
    plugin(bootstrap)["configuration"] = {"@type": STRING_VALUE, "value": text}


def enable_trailers(bootstrap: Bootstrap) -> None:
    """Let HTTP/1 trailers pass in both directions; Envoy drops them otherwise."""
    connection_manager(bootstrap)["http_protocol_options"] = {"enable_trailers": True}
    options = cluster(bootstrap, "llm_upstream")["typed_extension_protocol_options"][PROTOCOL_OPTIONS]
    options["explicit_http_config"]["http_protocol_options"] = {"enable_trailers": True}


def flush_soon(bootstrap: Bootstrap) -> None:
    """Records leave for the collector every 20 ms instead of every second."""
    filter_config(bootstrap)["collector"]["flush_ms"] = 20


def with_collector(**settings: Any) -> Callable[[Bootstrap], None]:
    """The shipped gateway with these collector settings, and records that leave soon."""

    def edit(bootstrap: Bootstrap) -> None:
        flush_soon(bootstrap)
        filter_config(bootstrap)["collector"] |= settings

    return edit


def close_soon(bootstrap: Bootstrap) -> None:
    """A connection that Envoy gives up is half open for the client for 0.1 s instead of a second."""
    connection_manager(bootstrap)["delayed_close_timeout"] = "0.1s"


def exact_balance(bootstrap: Bootstrap) -> None:
    """Spread connections evenly over the workers instead of by the kernel's hash."""
    listener(bootstrap)["connection_balance_config"] = {"exact_balance": {}}


def make_dynamic(bootstrap: Bootstrap, directory: Path) -> dict[str, Any]:
    """Serve the listener from a file in `directory` instead of the bootstrap; returns the listener to write there."""
    moved = bootstrap["static_resources"].pop("listeners")[0]
    source = {"path": str(directory / "lds.yaml"), "watched_directory": {"path": str(directory)}}
    bootstrap["dynamic_resources"] = {
        "lds_config": {"path_config_source": source, "resource_api_version": "V3"},
    }
    return moved


def write_dynamic(directory: Path, moved: dict[str, Any], version: str) -> None:
    """Publish a listener by rename, which is what Envoy watches for."""
    response = {"version_info": version, "resources": [{"@type": LISTENER, **moved}]}
    write(directory / "lds.yaml.new", response)
    os.replace(directory / "lds.yaml.new", directory / "lds.yaml")


def write(path: Path, value: dict[str, Any]) -> None:
    """As YAML, or as JSON where the name ends so: in YAML, fractions in a Struct reach the filter as strings; in JSON,
    as doubles."""
    if path.suffix == ".json":
        path.write_text(json.dumps(value), encoding="utf-8")
    else:
        path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000), encoding="utf-8")
