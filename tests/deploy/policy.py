"""What the rendered NetworkPolicies allow, evaluated as Kubernetes defines it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.deploy.manifests import Manifest


@dataclass(frozen=True)
class Pod:
    """Who sends or receives: its namespace, by the label that every namespace has, its labels and named ports."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)


def pod_of(manifests: list[Manifest], workload: str, namespace: str) -> Pod:
    """The pod that a Deployment or Job makes, given as kind/name."""
    kind, name = workload.split("/")
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    template = found["spec"]["template"]
    ports = {p["name"]: p["containerPort"] for c in template["spec"]["containers"] for p in c.get("ports", [])}
    return Pod(namespace, template["metadata"]["labels"], ports)


def admits(manifests: list[Manifest], source: Pod, target: Pod, port: str) -> bool:
    """Whether a connection from `source` to the named port of `target` is let in. The policies are of its namespace."""
    applied = [
        m["spec"]
        for m in manifests
        if m["kind"] == "NetworkPolicy"
        and "Ingress" in m["spec"]["policyTypes"]
        and _selects(m["spec"]["podSelector"], target.labels)
    ]
    rules = [rule for spec in applied for rule in spec.get("ingress", [])]
    return not applied or any(_rule(rule, source, target, port) for rule in rules)


def _rule(rule: dict[str, Any], source: Pod, target: Pod, port: str) -> bool:
    ports = [p["port"] for p in rule.get("ports", [])]
    if ports and not {port, target.ports[port]} & set(ports):
        return False
    # A rule without `from` lets everybody in; so does, by Kubernetes' rules, an empty list.
    return not rule.get("from") or any(_peer(peer, source, target.namespace) for peer in rule["from"])


def _peer(peer: dict[str, Any], source: Pod, own: str) -> bool:
    assert set(peer) <= {"namespaceSelector", "podSelector"}, f"not evaluated: {peer}"
    if "namespaceSelector" in peer:
        if not _selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": source.namespace}):
            return False
    elif source.namespace != own:
        return False
    return _selects(peer.get("podSelector", {}), source.labels)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"not evaluated: {selector}"
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
