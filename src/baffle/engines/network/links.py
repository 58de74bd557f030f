"""How zenoh's links are set up: who listens, who dials, what is encrypted, and what a client may do."""

# pyright: standard

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from baffle.certificates.names import client_name
from baffle.engines.network.addresses import joined
from baffle.engines.network.keyring import ClientKeys, ServerKeys

if TYPE_CHECKING:
    import zenoh

KEY = "baffle/2/ask"
"""Below which clients ask, each at its number, and the server alone answers. Here itself anyone may."""

HERE = "baffle/2/here"
"""Below which, and below its number, each client's session shows that it is there."""

OLD = "baffle/1/ask"
"""Where version 1 asked: it is told that it is old."""

RETRY = (0.25, 4.0)
"""Seconds between two attempts to reach the server: at first, and at most, doubling.

Not shorter: after each client that it refuses, zenoh's server accepts nobody for 0.1 s.
"""

FREEZE = 0.5
"""Seconds for which an answer waits for a client that takes nothing in; its link is cut then."""

_HEAD = 4096
"""Bytes that zenoh may put around a payload; far more than it does."""

MOST_CLIENTS = 65_536
"""That one server links to."""


def config_of(settings: Mapping[str, object]) -> zenoh.Config:
    """Return zenoh's own form of settings."""
    import zenoh

    config = zenoh.Config()
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return config


def server_settings(
    places: Sequence[tuple[str, int]], keys: ServerKeys | None, most_bytes: int, clients: int
) -> dict[str, object]:
    """Return how a server listens: nobody is let in without keys of the same authority, and each only asks."""
    scheme = "tcp" if keys is None else "tls"
    return {
        **_settings(scheme, most_bytes),
        "mode": "router",
        "listen/endpoints": [f"{scheme}/{joined(host, port)}" for host, port in places],
        "listen/timeout_ms": 0,
        "listen/exit_on_failure": True,
        "transport/unicast/max_sessions": MOST_CLIENTS,
        "transport/link/tx/queue/congestion_control/block/wait_before_close": int(FREEZE * 1e6),
        "access_control": _access(clients, certified=keys is not None),
        **({} if keys is None else _secured("listen", keys)),
    }


def client_settings(server: tuple[str, int], keys: ClientKeys | None, most_bytes: int) -> dict[str, object]:
    """Return how a client reaches its server, and nobody else."""
    scheme = "tcp" if keys is None else "tls"
    return {
        **_settings(scheme, most_bytes),
        "mode": "client",
        "connect/endpoints": [f"{scheme}/{joined(*server)}"],
        # Open fails at once when nobody is there; later links are sought for ever, at these intervals.
        "connect/timeout_ms": 0,
        "connect/retry": {
            "period_init_ms": int(RETRY[0] * 1e3),
            "period_max_ms": int(RETRY[1] * 1e3),
            "period_increase_factor": 2.0,
        },
        "transport/unicast/open_timeout": 5000,
        **({} if keys is None else _secured("connect", keys)),
    }


def _settings(scheme: str, most_bytes: int) -> dict[str, object]:
    """Return what server and clients have in common: no discovery, one protocol, one lane, bounded messages."""
    return {
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "scouting/delay": 0,
        "timestamping/enabled": False,
        "adminspace/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/unicast/qos/enabled": False,
        "transport/link/protocols": [scheme],
        "transport/link/rx/max_message_size": most_bytes + _HEAD,
        # As many batches (64 KiB) as zenoh allows, for MOST_BYTES: what exceeds them has FREEZE in all to leave.
        "transport/link/tx/queue/size/data": 16,
    }


def _secured(side: str, keys: ServerKeys | ClientKeys) -> dict[str, object]:
    """Return the settings of mutual TLS for the side that listens or connects."""
    tls = "transport/link/tls"
    return {
        f"{tls}/root_ca_certificate": str(keys.ca),
        f"{tls}/{side}_certificate": str(keys.certificate),
        # Not its file's name: that may be encrypted, and what opened it stays in memory.
        f"{tls}/{side}_private_key_base64": base64.b64encode(keys.key_pem).decode(),
        f"{tls}/enable_mtls": True,
        f"{tls}/verify_name_on_connect": True,
        f"{tls}/close_link_on_expiration": True,
    }


def _access(clients: int, *, certified: bool) -> dict[str, object]:
    """Return what passes between the server and anyone: all else is dropped.

    At a client's number only a link may speak whose TLS certificate names that client: so the server knows, before it
    looks at a message, whose it is. Each takes zenoh 5 KiB. Without certificates any link may.
    """
    rules = [
        _rule("ask", "query", "ingress", [KEY, OLD] if certified else [KEY, OLD, f"{KEY}/*"]),
        *([] if certified else [_rule("here", "liveliness_token", "ingress", [f"{HERE}/*/*"])]),
        _rule("reply", "reply", "egress", [KEY, OLD, f"{KEY}/*"]),
        _rule("answer", "declare_queryable", "egress", [KEY, OLD, f"{KEY}/*"]),
    ]
    subjects: list[dict[str, object]] = [{"id": "anyone"}]
    policies = [{"rules": [rule["id"] for rule in rules], "subjects": ["anyone"]}]
    for number in range(clients if certified else 0):
        own = [
            _rule(f"ask-{number}", "query", "ingress", [f"{KEY}/{number}"]),
            _rule(f"here-{number}", "liveliness_token", "ingress", [f"{HERE}/{number}/*"]),
        ]
        subjects.append({"id": f"client-{number}", "cert_common_names": [client_name(number)]})
        policies.append({"rules": [rule["id"] for rule in own], "subjects": [f"client-{number}"]})
        rules += own
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }


def _rule(name: str, message: str, flow: str, keys: Sequence[str]) -> dict[str, object]:
    return {"id": name, "messages": [message], "flows": [flow], "permission": "allow", "key_exprs": list(keys)}
