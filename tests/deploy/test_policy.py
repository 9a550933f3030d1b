"""Who may call what, by the rendered NetworkPolicies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.manifests import profile, render
from tests.deploy.policy import Pod, admits, pod_of

NGINX = Pod("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"})
TRAEFIK = Pod("traefik", {"app.kubernetes.io/name": "traefik"})
ENVOY = Pod("envoy-gateway-system", {"app.kubernetes.io/managed-by": "envoy-gateway"})
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
NEIGHBOUR = Pod("search", {"app": "shop"})
STRANGER = Pod("elsewhere", {"app": "shop"})
INGRESS = {"enabled": True, "hosts": {"ingest": "i.example.com", "query": "q.example.com"}}


def admitted(values: dict[str, Any], source: Pod, port: str = "http", full: str = "dl-driftline") -> set[str]:
    """The services whose port `source` reaches."""
    manifests = render(values)
    services = ("ingest", "encode", "index", "query", "upgrade")
    pods = {s: pod_of(manifests, f"Deployment/{full}-{s}", "search") for s in services}
    return {s for s, pod in pods.items() if port in pod.ports and admits(manifests, source, pod, port)}


@pytest.mark.parametrize("controller", [NGINX, TRAEFIK])
def test_an_ingress_lets_its_controller_in_to_what_has_a_host_and_to_nothing_else(controller: Pod) -> None:
    assert admitted({"ingress": INGRESS}, controller) == {"ingest", "query"}
    assert admitted({"ingress": INGRESS}, controller, "grpc") == set()
    assert admitted({}, controller) == set()
    impostor = Pod("elsewhere", controller.labels)
    assert admitted({"ingress": INGRESS}, impostor) == set()
    beside_it = Pod(controller.namespace, {"app": "default-backend"})
    assert admitted({"ingress": INGRESS}, beside_it) == set()


def test_a_controller_of_another_make_is_let_in_by_its_own_selector() -> None:
    haproxy = Pod("edge", {"app": "haproxy"})
    own = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}}]
    assert admitted({"ingress": INGRESS}, haproxy) == set()
    assert admitted({"ingress": {**INGRESS, "controllerFrom": own}}, haproxy) == {"ingest", "query"}


@pytest.mark.parametrize(
    "parent, gateway",
    [
        ({"name": "edge"}, Pod("search", {"gateway.networking.k8s.io/gateway-name": "edge"})),
        ({"name": "edge", "namespace": "infra"}, Pod("infra", {"gateway.networking.k8s.io/gateway-name": "edge"})),
        ({"name": "edge", "namespace": "infra"}, ENVOY),
    ],
)
def test_a_route_lets_the_pods_of_its_gateways_in(parent: dict[str, str], gateway: Pod) -> None:
    values = {"gateway": {"enabled": True, "parentRefs": [parent]}, "networkPolicy": {"apiFrom": [{"podSelector": {}}]}}
    assert admitted(values, gateway) == {"ingest", "query", "upgrade"}
    assert admitted(values, Pod("infra", {"gateway.networking.k8s.io/gateway-name": "another"})) == set()


def test_metrics_are_scraped_by_prometheus_and_strangers_reach_nothing() -> None:
    assert admitted({}, PROMETHEUS) == {"ingest", "encode", "index", "query", "upgrade"}
    assert admitted({}, PROMETHEUS, "grpc") == set()
    assert admitted({"ingress": INGRESS}, STRANGER) == set()
    assert admitted({}, NEIGHBOUR) == {"ingest", "query", "upgrade"}
    assert admitted({}, NEIGHBOUR, "grpc") == {"ingest", "query"}
    assert admitted({"networkPolicy": {"enabled": False}}, STRANGER) == {
        "ingest",
        "encode",
        "index",
        "query",
        "upgrade",
    }


def test_the_tenants_profile_is_reached_through_its_ingress_and_by_its_own_namespace_alone() -> None:
    values = profile("multi-tenant")
    apis = {"ingest", "query", "upgrade"}
    assert admitted(values, TRAEFIK, full="driftline-acme") == apis
    assert admitted(values, Pod("acme", {"app": "shop"}), full="driftline-acme") == apis
    assert admitted(values, NEIGHBOUR, full="driftline-acme") == set()


def test_the_collections_job_reaches_ingest_whoever_else_may() -> None:
    manifests = render(profile("multi-tenant"))
    job = pod_of(manifests, "Job/driftline-acme-collections", "search")
    assert admits(manifests, job, pod_of(manifests, "Deployment/driftline-acme-ingest", "search"), "http")


def test_triton_and_redis_serve_the_services_and_nobody_else() -> None:
    manifests = render({"triton": {"enabled": True}, "redis": {"enabled": True}})
    query = pod_of(manifests, "Deployment/dl-driftline-query", "search")
    for name, port in (("triton", "grpc"), ("redis", "redis")):
        server = pod_of(manifests, f"Deployment/dl-driftline-{name}", "search")
        assert admits(manifests, query, server, port)
        assert not admits(manifests, NEIGHBOUR, server, port)
    triton = pod_of(manifests, "Deployment/dl-driftline-triton", "search")
    assert admits(manifests, PROMETHEUS, triton, "metrics")
    assert not admits(manifests, PROMETHEUS, triton, "grpc")
