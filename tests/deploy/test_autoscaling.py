"""What KEDA is given to look at Kafka: the way that the services themselves have."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.manifests import by_kind, profile, render, validate

SCALED = {"encode": {"autoscaling": {"enabled": True}}, "index": {"autoscaling": {"enabled": True}}}


def given(values: dict[str, Any], name: str) -> tuple[dict[str, str], dict[str, str], dict[str, tuple[str, str]]]:
    """The trigger's metadata, the parameters of ConfigMaps by value, and those of Secrets by name and key."""
    manifests = render(values)
    for manifest in manifests:
        validate(manifest)
    (trigger,) = by_kind(manifests, "ScaledObject")[name]["spec"]["triggers"]
    if "authenticationRef" not in trigger:
        return trigger["metadata"], {}, {}
    spec = by_kind(manifests, "TriggerAuthentication")[trigger["authenticationRef"]["name"]]["spec"]
    maps = by_kind(manifests, "ConfigMap")
    plain = {r["parameter"]: maps[r["name"]]["data"][r["key"]] for r in spec.get("configMapTargetRef", [])}
    secret = {r["parameter"]: (r["name"], r["key"]) for r in spec["secretTargetRef"]}
    return trigger["metadata"], plain, secret


@pytest.mark.parametrize("service", ["encode", "index"])
def test_keda_logs_in_as_the_services_do_and_trusts_what_they_trust(service: str) -> None:
    metadata, plain, secret = given(profile("production"), f"dl-driftline-{service}")
    assert (metadata["sasl"], metadata["tls"]) == ("scram_sha512", "enable")
    assert plain == {"username": "driftline"}
    assert secret == {"password": ("driftline-kafka", "password"), "ca": ("kafka-ca", "ca.crt")}


@pytest.mark.parametrize(
    "mechanism, word", [("PLAIN", "plaintext"), ("SCRAM-SHA-256", "scram_sha256"), ("SCRAM-SHA-512", "scram_sha512")]
)
def test_every_mechanism_has_its_word_in_keda(mechanism: str, word: str) -> None:
    kafka = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "sasl_username": "u"}
    values = {**SCALED, "config": {"kafka": kafka}, "secrets": {"kafka": {"existingSecret": "k", "secretKey": "pw"}}}
    metadata, plain, secret = given(values, "dl-driftline-encode")
    assert metadata["sasl"] == word and "tls" not in metadata
    assert (plain, secret) == ({"username": "u"}, {"password": ("k", "pw")})


def test_a_private_authority_reaches_keda_without_a_login_too() -> None:
    values = {
        **SCALED,
        "config": {"kafka": {"security_protocol": "SSL"}},
        "secrets": {"kafkaCa": {"existingSecret": "ca", "secretKey": "root.pem"}},
    }
    metadata, plain, secret = given(values, "dl-driftline-index")
    assert metadata["tls"] == "enable" and "sasl" not in metadata
    assert (plain, secret) == ({}, {"ca": ("ca", "root.pem")})


def test_a_service_that_logs_in_on_its_own_is_watched_by_its_own_login() -> None:
    own = {"security_protocol": "SASL_SSL", "sasl_username": "indexer"}
    values = {**SCALED, "secrets": {"kafka": {"existingSecret": "k"}}}
    values["index"] = {**SCALED["index"], "config": {"kafka": own}}
    assert given(values, "dl-driftline-encode")[1:] == ({}, {})
    assert given(values, "dl-driftline-index")[1] == {"username": "indexer"}
