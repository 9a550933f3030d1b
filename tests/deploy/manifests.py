"""The chart rendered offline, and what a manifest must pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from helm_python.chart import Chart

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/driftline"
KUBERNETES = "1.33"
# The one value that has no default.
REPOSITORY = "registry.example.com/search/driftline"
_MODELS = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "PodMonitor": prometheus_operator.PodMonitor,
    "PrometheusRule": prometheus_operator.PrometheusRule,
}

Manifest = dict[str, Any]


@cache
def _chart() -> Chart:
    return Chart.load(str(CHART))


def render(values: Mapping[str, Any], name: str = "dl", namespace: str = "search") -> list[Manifest]:
    """Every manifest, in the order of the templates, with `REPOSITORY` for the images. Raises what helm raises."""
    chart = _chart()
    given = {"image": {}, **values}
    given["image"] = {"repository": REPOSITORY, **given["image"]}
    chart.validate_schema(given)
    rendered = chart.render(given, name=name, namespace=namespace)
    return [
        manifest
        for path, text in sorted(rendered.items())
        if not path.endswith("NOTES.txt")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


def validate(manifest: Manifest) -> None:
    """Strictly: an unknown field is an error. CRDs by the models made from them, or by our schemas of what we use."""
    _validate(json.dumps(manifest, sort_keys=True))


@cache
def _validate(text: str) -> None:
    """Features share most manifests: the same text is validated once."""
    manifest = json.loads(text)
    kind = manifest["kind"]
    if kind in _MODELS:
        known = _MODELS[kind].model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json")
        dropped = _missing(manifest, known)
        assert not dropped, f"{kind} {manifest['metadata']['name']}: unknown fields {dropped}"
    elif (schema := Path(__file__).parent / f"schemas/{kind}.json").exists():
        jsonschema.validate(manifest, json.loads(schema.read_text(encoding="utf-8")))
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def _missing(given: Any, known: Any, path: str = "") -> list[str]:
    """Paths of `given` that a model did not take over."""
    if isinstance(given, dict):
        if not isinstance(known, dict):
            return [path]
        return [
            m
            for k, v in given.items()
            for m in ([f"{path}.{k}"] if k not in known else _missing(v, known[k], f"{path}.{k}"))
        ]
    if isinstance(given, list) and isinstance(known, list):
        return [m for i, (a, b) in enumerate(zip(given, known, strict=True)) for m in _missing(a, b, f"{path}[{i}]")]
    return []


def profile(name: str) -> Manifest:
    return dict(yaml.safe_load((CHART / f"profiles/{name}.yaml").read_text(encoding="utf-8")))


def by_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Pod specs of all workloads, by kind/name."""
    return {
        f"{m['kind']}/{m['metadata']['name']}": m["spec"]["template"]["spec"]
        for m in manifests
        if m["kind"] in ("Deployment", "StatefulSet", "Job")
    }
