"""The chart: schema, every profile and feature, strict validation, and what a platform team relies on."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from helm_python.chart import Chart, lint

from driftline.core.collections import parse_definition
from driftline.core.settings import load
from driftline.core.topics import BY_NAME
from driftline.encode.settings import EncodeSettings
from driftline.index.settings import IndexSettings
from driftline.ingest.settings import IngestSettings
from driftline.query.settings import QuerySettings
from driftline.upgrade.settings import UpgradeSettings
from tests.deploy.manifests import CHART, ROOT, by_kind, pods, profile, render, validate

PROFILES = ["small", "production", "gpu", "multi-tenant"]
SERVICES = ["ingest", "encode", "index", "query", "upgrade"]
SETTINGS = {
    "ingest": IngestSettings, "encode": EncodeSettings, "index": IndexSettings, "query": QuerySettings,
    "upgrade": UpgradeSettings,
}  # fmt: skip
# Of kafka-versions.yaml in Strimzi 1.2.0, those marked as supported.
STRIMZI_1_2 = ("4.2.0", "4.2.1", "4.3.0", "4.3.1")
FEATURES: dict[str, dict[str, Any]] = {
    "autoscaling": {s: {"autoscaling": {"enabled": True}} for s in SERVICES[:-1]},
    "latency": {"query": {"autoscaling": {"enabled": True, "latency": {"enabled": True}}}},
    "sasl": {
        "config": {"kafka": {"security_protocol": "SASL_SSL", "sasl_username": "u"}},
        "secrets": {"kafka": {"existingSecret": "k"}, "kafkaCa": {"existingSecret": "ca"}},
        "encode": {"autoscaling": {"enabled": True}},
    },
    "secrets": {"secrets": {"milvus": {"existingSecret": "m"}, "redis": {"existingSecret": "r"}}},
    "open": {"auth": {"enabled": False}, "networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}},
    "monitoring": {"metrics": {k: {"enabled": True} for k in ("podMonitor", "rules", "dashboards")}},
    "servers": {"redis": {"enabled": True}, "triton": {"enabled": True, "gpus": 1, "autoscaling": {"enabled": True}}},
    "operators": {"strimzi": {"enabled": True}, "milvus": {"enabled": True}},
    "edges": {
        "ingress": {"enabled": True, "tlsSecret": "tls", "hosts": {"ingest": "i.example.com", "query": "q.x.com"}},
        "gateway": {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["a.example.com"]},
    },
    "collections": {
        "collectionsJob": {"enabled": True},
        "collections": {"a": {"fields": {"t": {"type": "text"}}, "embedding": {"fields": ["t"], "encoder": "e"}}},
    },
    "extras": {
        "extraEnv": [{"name": "A", "value": "1"}], "extraEnvFrom": [{"secretRef": {"name": "s"}}],
        "extraVolumes": [{"name": "v", "emptyDir": {}}], "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "podLabels": {"team": "search"}, "podAnnotations": {"a": "b"}, "commonLabels": {"c": "d"},
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high",
        "affinity": {"nodeAffinity": {}}, "imagePullSecrets": [{"name": "reg"}],
        "ingest": {"sources": "sources: []\n", "extraEnv": [{"name": "B", "value": "2"}]},
    },
}  # fmt: skip


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


COMBINATIONS = [(), *((f,) for f in FEATURES), *itertools.combinations(FEATURES, 2), tuple(FEATURES)]


def test_lint_finds_nothing() -> None:
    report = lint(str(CHART))
    assert not report["errors"]
    assert [m for m in report["messages"] if m["severity"] > 1] == [], "1 is advice"


@pytest.mark.parametrize("features", COMBINATIONS, ids="+".join)
def test_every_combination_of_features_is_valid(features: tuple[str, ...]) -> None:
    manifests = render(merged(*(FEATURES[f] for f in features)))
    for manifest in manifests:
        validate(manifest)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_valid(name: str) -> None:
    for manifest in render(profile(name)):
        validate(manifest)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"ingset": {}}, "ingset"),
        ({"query": {"replicas": "three"}}, "replicas"),
        ({"config": {"kafak": {}}}, "kafak"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"collections": {"a": {"fields": {}}}}, "embedding"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        Chart.load(str(CHART)).validate_schema(values)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"encode": {"autoscaling": {"enabled": True, "maxReplicas": 30}}}, "partitions"),
        ({"gateway": {"enabled": True}}, "parentRefs"),
        (
            {"config": {"kafka": {"security_protocol": "SASL_SSL"}}, "index": {"autoscaling": {"enabled": True}}},
            "existingSecret",
        ),
        (
            {
                "config": {"kafka": {"security_protocol": "SASL_SSL"}},
                "secrets": {"kafka": {"existingSecret": "k"}},
                "index": {"autoscaling": {"enabled": True}},
            },
            "sasl_username",
        ),
        ({"ingress": {"enabled": True}}, "ingress.hosts"),
        ({"image": {"repository": ""}}, "make images"),
    ],
)
def test_values_that_contradict_one_another_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        render(values)


@pytest.mark.parametrize("name", ["", *PROFILES])
@pytest.mark.parametrize("service", SERVICES)
def test_the_mounted_settings_are_settings_of_the_service(
    service: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pod would read, read by the service's own settings: a section or field that is none stops here."""
    manifests = render(profile(name) if name else {})
    (found,) = [
        m for n, m in by_kind(manifests, "ConfigMap").items() if n.endswith((f"driftline-{service}", f"acme-{service}"))
    ]
    file = tmp_path / "driftline.yaml"
    file.write_text(found["data"]["driftline.yaml"])
    (pod,) = [p for n, p in pods(manifests).items() if n.startswith("Deployment/") and n.endswith(f"-{service}")]
    for known in [k for k in os.environ if k.startswith("DRIFTLINE_")]:
        monkeypatch.delenv(known)
    for variable in pod["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    monkeypatch.setenv("DRIFTLINE_CONFIG", str(file))
    settings = load(SETTINGS[service])
    assert settings.kafka.partitions == yaml.safe_load(found["data"]["driftline.yaml"])["kafka"]["partitions"]
    if service in ("ingest", "query", "upgrade"):
        assert (settings.http.host, settings.http.port) == ("0.0.0.0", 8080)  # type: ignore[attr-defined]
        assert settings.auth.mode == "api_key"  # type: ignore[attr-defined]
    drains = getattr(settings, "runner", None)
    if drains is not None:
        assert pod["terminationGracePeriodSeconds"] > drains.drain_seconds + 5


@pytest.mark.parametrize("name", PROFILES)
def test_pods_hold_the_restricted_profile(name: str) -> None:
    for where, pod in pods(render(profile(name))).items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and security["seccompProfile"]["type"] == "RuntimeDefault", where
        assert pod["automountServiceAccountToken"] is False, where
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], where
            assert not container["image"].endswith(":latest"), where
            for variable in container.get("env", []):
                assert "value" not in variable or "password" not in variable["value"] or "/" in variable["value"]


def test_a_changed_setting_rolls_the_pods_that_read_it_and_no_others() -> None:
    def sums(values: dict[str, Any]) -> dict[str, str]:
        found = by_kind(render(values), "Deployment")
        return {n: d["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for n, d in found.items()}

    before, after = sums({}), sums({"query": {"config": {"query": {"max_limit": 50}}}})
    assert {n for n in before if before[n] != after[n]} == {"dl-driftline-query"}


def test_replicas_are_left_to_the_autoscaler_where_there_is_one() -> None:
    found = by_kind(render(FEATURES["autoscaling"]), "Deployment")
    assert {n for n, d in found.items() if "replicas" in d["spec"]} == {"dl-driftline-upgrade"}


def test_scaling_follows_the_groups_and_topics_of_the_services() -> None:
    manifests = render(
        merged(profile("multi-tenant"), {s: {"autoscaling": {"enabled": True}} for s in ("encode", "index")})
    )
    found = {
        n: (o["spec"]["triggers"][0]["metadata"]["topic"], o["spec"]["triggers"][0]["metadata"]["consumerGroup"])
        for n, o in by_kind(manifests, "ScaledObject").items()
    }
    assert found == {
        "driftline-acme-encode": ("acme.changes", "acme-encode"),
        "driftline-acme-index": ("acme.vectors", "acme-index"),
    }
    assert {"changes", "vectors"} <= set(BY_NAME)
    default = by_kind(render({"encode": {"autoscaling": {"enabled": True}}}), "ScaledObject")["dl-driftline-encode"]
    assert default["spec"]["triggers"][0]["metadata"]["consumerGroup"] == EncodeSettings().encode.group


def test_collections_of_the_profiles_are_collections() -> None:
    maps = by_kind(render(profile("multi-tenant")), "ConfigMap")
    for text in maps["driftline-acme-collections"]["data"].values():
        assert parse_definition(yaml.safe_load(text)).name


def test_selectors_never_change() -> None:
    """They are immutable in a cluster: a chart that changed them could not be upgraded."""
    for name, deployment in by_kind(render({}), "Deployment").items():
        assert deployment["spec"]["selector"]["matchLabels"] == {
            "app.kubernetes.io/name": "driftline",
            "app.kubernetes.io/instance": "dl",
            "app.kubernetes.io/component": name.removeprefix("dl-driftline-"),
        }


def test_rules_and_dashboards_are_those_of_deploy() -> None:
    manifests = render(FEATURES["monitoring"])
    (rule,) = by_kind(manifests, "PrometheusRule").values()
    groups = [
        group
        for file in ("recording.rules.yaml", "alerts.rules.yaml")
        for group in yaml.safe_load((ROOT / "deploy/prometheus" / file).read_text())["groups"]
    ]
    assert rule["spec"]["groups"] == groups
    dashboards = sorted(p.name for p in (ROOT / "deploy/grafana/dashboards").glob("*.json"))
    found = [k for m in by_kind(manifests, "ConfigMap").values() for k in m["data"] if k.endswith(".json")]
    assert sorted(found) == dashboards


@pytest.mark.parametrize("triton, seconds", [({"enabled": True, "replicas": 3}, 60), ({"enabled": False}, None)])
def test_models_are_unloaded_where_the_address_of_triton_stands_for_all_of_its_pods(
    triton: dict[str, Any], seconds: int | None
) -> None:
    manifests = render({"triton": triton})
    configs = by_kind(manifests, "ConfigMap")
    told = {n: yaml.safe_load(m["data"]["driftline.yaml"]) for n, m in configs.items() if "driftline.yaml" in m["data"]}
    assert [c["upgrade"]["unload_after_seconds"] for c in told.values() if "upgrade" in c] == (
        [seconds] if seconds else []
    )
    headless = [m["spec"].get("clusterIP") for n, m in by_kind(manifests, "Service").items() if n.endswith("-triton")]
    assert headless == (["None"] if triton["enabled"] else [])


OPERATORS = {"strimzi": {"enabled": True, "storageClass": "fast"}, "milvus": {"enabled": True}}


def test_kafka_is_what_strimzi_serves() -> None:
    """Strimzi 1.0 and later serve only v1; the schemas are made from the CRDs of 1.2."""
    manifests = render(OPERATORS)
    (kafka,), (pool,) = by_kind(manifests, "Kafka").values(), by_kind(manifests, "KafkaNodePool").values()
    for manifest in (kafka, pool):
        validate(manifest)
        assert manifest["apiVersion"] == "kafka.strimzi.io/v1"
        assert not [a for a in manifest["metadata"].get("annotations", {}) if a.startswith("strimzi.io/")]
        for wrong in ({"apiVersion": "kafka.strimzi.io/v1beta2"}, {"spec": {**manifest["spec"], "zookeeper": {}}}):
            with pytest.raises(jsonschema.ValidationError):
                validate({**manifest, **wrong})
    assert kafka["spec"]["kafka"]["version"] in STRIMZI_1_2
    assert pool["metadata"]["labels"]["strimzi.io/cluster"] == kafka["metadata"]["name"]
    (query,) = [m for n, m in by_kind(manifests, "ConfigMap").items() if n.endswith("-query")]
    told = yaml.safe_load(query["data"]["driftline.yaml"])["kafka"]["bootstrap_servers"]
    assert told == f"{kafka['metadata']['name']}-kafka-bootstrap:9092", "the Service that Strimzi makes"
