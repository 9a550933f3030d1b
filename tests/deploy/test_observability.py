"""Rules, dashboards and runbooks: promtool, and that nothing asks for a metric that nobody declares."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from driftline.core import metrics
from tests.deploy.manifests import ROOT

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
# Of Triton, and of Prometheus itself.
FOREIGN = {"nv_inference_queue_duration_us", "nv_inference_request_success", "up"}


def rules() -> list[dict[str, object]]:
    return [
        rule
        for file in sorted(PROMETHEUS.glob("*.rules.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


RECORDED = {str(rule["record"]) for rule in rules() if "record" in rule}
ALERTS = {str(rule["alert"]): rule for rule in rules() if "alert" in rule}


def exposed() -> dict[str, set[str]]:
    """Name of every series that the services expose -> its labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        (described,) = metric.describe()
        labels = set(metric._labelnames)
        if isinstance(metric, Counter):
            found[f"{described.name}_total"] = labels
        elif isinstance(metric, Histogram):
            found |= {f"{described.name}_{part}": labels for part in ("bucket", "sum", "count")}
        else:
            found[described.name] = labels
    return found


def unknown(expression: str) -> set[str]:
    names = set(re.findall(r"\b(?:driftline[_:][\w:]+|nv_\w+|up(?=\{| ==))", expression))
    return names - set(exposed()) - RECORDED - FOREIGN


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_configuration_are_valid() -> None:
    promtool("check", "rules", "recording.rules.yaml", "alerts.rules.yaml")
    promtool("check", "config", "prometheus.yaml")


def test_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules.test.yaml")


def test_every_alert_has_a_test_that_fires_it_a_severity_and_a_runbook() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules.test.yaml").read_text())["tests"]
    fired = {a["alertname"] for t in tests for a in t.get("alert_rule_test", []) if a.get("exp_alerts")}
    assert fired == set(ALERTS)
    pages = {p.stem for p in (ROOT / "docs/runbooks").glob("*.md")}
    assert pages == set(ALERTS), "a runbook page for each alert, and none without"
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning")  # type: ignore[index]
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{name}.md")  # type: ignore[index]


def test_links_between_runbooks_lead_somewhere() -> None:
    for page in (ROOT / "docs/runbooks").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("rule", rules(), ids=lambda r: str(r.get("record") or r.get("alert")))
def test_rules_ask_for_declared_metrics(rule: dict[str, object]) -> None:
    assert not unknown(str(rule["expr"]))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda p: p.stem)
def test_dashboards_ask_for_declared_metrics_and_labels(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    expressions = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    assert expressions
    labels = {label for known in exposed().values() for label in known} | {"le", "job", "instance", "model", "topic"}
    for expression in expressions:
        assert not unknown(expression), expression
        for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {g.strip() for g in grouped.split(",")} <= labels, expression
    assert len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda p: p.stem)
def test_panels_do_not_overlap(file: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(file.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_declared_metric_is_on_a_dashboard_or_in_a_rule() -> None:
    used = " ".join([f.read_text() for f in DASHBOARDS] + [str(r["expr"]) for r in rules()])
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed()}
    assert {name for name in bare if name not in used} == set()


def test_the_committed_dashboards_are_what_their_source_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "deploy/tools/dashboards.py"), str(tmp_path)], check=True, timeout=60)
    for file in DASHBOARDS:
        assert (tmp_path / file.name).read_text() == file.read_text(), f"run `make docs`: {file.name}"
    assert sorted(p.name for p in tmp_path.glob("*.json")) == [p.name for p in DASHBOARDS]


def test_the_chart_readme_is_what_its_values_say(tmp_path: Path) -> None:
    target = tmp_path / "README.md"
    subprocess.run([sys.executable, str(ROOT / "deploy/tools/chart_readme.py"), str(target)], check=True, timeout=60)
    assert target.read_text() == (ROOT / "helm/driftline/README.md").read_text(), "run `make docs`"
