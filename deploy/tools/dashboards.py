"""Write the Grafana dashboards: `python deploy/tools/dashboards.py [folder]`.

Declared here as rows of panels, so that a query stands once and the layout is not kept by hand. A test checks that
every metric of every query is declared in driftline.core.metrics, and that the committed files are what this writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1] / "grafana/dashboards"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDE, _HIGH = 24, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries` are (expression, legend); `unit` is one of Grafana's: s, ops, short, percentunit, none."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""

    def json(self, number: int, x: int, y: int, width: int) -> dict[str, Any]:
        targets = [
            {"datasource": _SOURCE, "expr": expression, "legendFormat": legend, "refId": chr(65 + i)}
            for i, (expression, legend) in enumerate(self.queries)
        ]
        options: dict[str, Any] = {
            "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
            "table": {},
        }[self.kind]
        custom = {"lineWidth": 2, "fillOpacity": 8, "showPoints": "never"} if self.kind == "timeseries" else {}
        return {
            "id": number, "title": self.title, "description": self.about, "type": self.kind, "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": width, "h": _HIGH if self.kind != "stat" else 4}, "targets": targets,
            "fieldConfig": {"defaults": {"unit": self.unit, "custom": custom}, "overrides": []}, "options": options,
        }  # fmt: skip


def _quantiles(metric: str, by: str = "", where: str = "") -> list[tuple[str, str]]:
    group = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({q}, sum by ({group}) (rate(driftline_{metric}_bucket{{{where}}}[$__rate_interval])))",
            f"p{int(q * 100)}{legend}",
        )
        for q in (0.5, 0.99)
    ]


def _rate(metric: str, by: str = "", where: str = "") -> tuple[str, str]:
    total = f"rate(driftline_{metric}{{{where}}}[$__rate_interval])"
    return (f"sum by ({by}) ({total})", f"{{{{{by}}}}}") if by else (f"sum({total})", metric.removesuffix("_total"))


DASHBOARDS: dict[str, tuple[str, Sequence[Sequence[Panel]]]] = {
    "overview": (
        "Driftline / Overview",
        [
            [
                Panel("Events/s", [("driftline:events:rate5m", "events")], "ops", "stat"),
                Panel("Searches/s", [("driftline:searches:rate5m", "searches")], "ops", "stat"),
                Panel("Freshness p99", [("driftline:freshness_seconds:p99_5m", "p99")], "s", "stat"),
                Panel("Search p95", [('driftline:search_seconds:p95_5m{part="total"}', "p95")], "s", "stat"),
                Panel("Behind", [('sum(driftline:lag_records:sum{topic!="backfill"})', "lag")], "short", "stat"),
                Panel("Not ready", [("sum(driftline_ready == bool 0)", "checks")], "none", "stat"),
            ],
            [
                Panel("Searches that fail", [
                    ("driftline:search_errors:ratio_rate5m", "5 min"), ("driftline:search_errors:ratio_rate1h", "1 h"),
                ], "percentunit", about="The objective is 0.1 %."),
                Panel("Searches over 500 ms", [
                    ("driftline:search_slow:ratio_rate5m", "5 min"), ("driftline:search_slow:ratio_rate1h", "1 h"),
                ], "percentunit", about="The objective is 1 %."),
                Panel("Events over 30 s", [
                    ("driftline:events_late:ratio_rate5m", "5 min"), ("driftline:events_late:ratio_rate1h", "1 h"),
                ], "percentunit", about="The objective is 1 %."),
            ],
            [
                Panel("Freshness", _quantiles("freshness_seconds"), "s"),
                Panel("Search", _quantiles("search_seconds", where='part="total"'), "s"),
                Panel("Outcomes of events", [_rate("outcomes_total", "outcome")], "ops"),
            ],
            [
                Panel("Readiness, by check", [("min by (job, check) (driftline_ready)", "{{job}} {{check}}")], "none"),
                Panel("Dead letters", [_rate("dead_letters_total", "reason")], "ops"),
                Panel("Put off, and who waits", [
                    _rate("put_off_total", "reason"),
                    ("max by (collection) (driftline_collection_waits)", "{{collection}} waits"),
                    ("max by (topic) (driftline_source_paused)", "source {{topic}} rests"),
                ], about="Changes put off: by share, others' go first; those that wait, their collection's store or "
                         "encoder cannot be used."),
                Panel("Versions running", [
                    ("count by (service, version) (driftline_build_info)", "{{service}} {{version}}"),
                ], "none"),
            ],
        ],
    ),
    "pipeline": (
        "Driftline / Pipeline",
        [
            [
                Panel("Events accepted", [_rate("events_total", "source")], "ops"),
                Panel("Records taken, by topic", [_rate("records_total", "topic")], "ops"),
                Panel("Records behind, by topic", [("driftline:lag_records:sum", "{{topic}}")]),
            ],
            [
                Panel("Where freshness goes (p99)", _quantiles("freshness_part_seconds", "part")[1:], "s"),
                Panel("Parts of a batch (p99)", _quantiles("stage_seconds", "part")[1:], "s"),
                Panel("Records per batch", _quantiles("batch_records")),
            ],
            [
                Panel("Batches, by result", [_rate("batches_total", "result")], "ops"),
                Panel("In flight", [("sum by (job) (driftline_in_flight_batches)", "{{job}}")], "none"),
                Panel("Rebalances", [
                    ("sum by (job) (increase(driftline_rebalances_total[$__rate_interval]))", "{{job}}"),
                ], "none"),
            ],
            [
                Panel("Refused at the API", [_rate("events_refused_total", "code")], "ops"),
                Panel("Chunks per document", _quantiles("document_chunks")),
                Panel("Rows written", [_rate("store_rows_total")], "ops"),
            ],
        ],
    ),
    "query": (
        "Driftline / Query",
        [
            [
                Panel("Searches, by kind", [_rate("searches_total", "kind")], "ops"),
                Panel("Search, by part (p99)", _quantiles("search_seconds", "part")[1:], "s"),
                Panel("Searches, by collection", [_rate("searches_total", "collection")], "ops"),
            ],
            [
                Panel("Requests, by status", [_rate("http_requests_total", "status")], "ops"),
                Panel("Cache hits", [("driftline:cache_hits:ratio_rate5m", "{{cache}}")], "percentunit"),
                Panel("Cache errors", [_rate("cache_errors_total", "job")], "ops"),
            ],
        ],
    ),
    "upgrade": (
        "Driftline / Upgrade",
        [
            [
                Panel("Quality: nDCG@10 of the shadow queries", [
                    ("max by (collection, route) (driftline_upgrade_quality)", "{{collection}} {{route}}"),
                ], "none"),
                Panel("Served minus status quo (95 % interval)", [
                    ("max by (collection, bound) (driftline_upgrade_difference)", "{{collection}} {{bound}}"),
                ], "none", about="Wholly under minus the margin, and the status quo is served."),
                Panel("Re-embedded", [
                    ("max by (collection) (driftline_upgrade_fraction)", "{{collection}}"),
                ], "percentunit"),
            ],
            [
                Panel("Phase", [
                    ("max by (collection, phase) (driftline_upgrade_phase) == 1", "{{collection}} {{phase}}"),
                ], "none"),
                Panel("Fallen back", [("max by (collection) (driftline_upgrade_fallback)", "{{collection}}")], "none"),
                Panel("Backfilled", [_rate("backfilled_total", "outcome")], "ops"),
            ],
            [
                Panel("The map is off by", [
                    ("max by (collection, of) (driftline_drift_residual)", "{{collection}} {{of}}"),
                ], "none", about="Mean of 1 - cosine; at 1.5 times `fit` + 0.02 the upgrade fits again."),
                Panel("Shift of what is written", [
                    ("max by (collection) (driftline_drift_shift)", "{{collection}}"),
                ], "none"),
                Panel("Overlap@10 with the old encoder", [
                    ("max by (collection) (driftline_drift_overlap)", "{{collection}}"),
                ], "percentunit"),
            ],
        ],
    ),
    "dependencies": (
        "Driftline / Dependencies",
        [
            [
                Panel("Triton: texts/s", [_rate("triton_texts_total", "encoder")], "ops"),
                Panel("Triton: one request", _quantiles("triton_request_seconds", "encoder"), "s"),
                Panel("Triton: time in its queue", [
                    ("sum by (model) (rate(nv_inference_queue_duration_us[$__rate_interval])) / "
                     "sum by (model) (rate(nv_inference_request_success[$__rate_interval])) / 1e6", "{{model}}"),
                ], "s"),
            ],
            [
                Panel("Milvus: one call (p99)", _quantiles("store_seconds", "operation")[1:], "s"),
                Panel("Put off, by dependency", [_rate("unavailable_total", "dependency")], "ops"),
                Panel("Spaces refused", [
                    ("sum by (job) (increase(driftline_space_refusals_total[$__rate_interval]))", "{{job}}"),
                ], "none"),
            ],
        ],
    ),
}  # fmt: skip


def build(name: str) -> dict[str, Any]:
    title, rows = DASHBOARDS[name]
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        width = _WIDE // len(row)
        for i, panel in enumerate(row):
            panels.append(panel.json(len(panels) + 1, i * width, y, width))
        y += panels[-1]["gridPos"]["h"]
    return {
        "uid": f"driftline-{name}", "title": title, "tags": ["driftline"], "schemaVersion": 39, "version": 1,
        "editable": False, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "links": [{"type": "dashboards", "tags": ["driftline"], "title": "Driftline", "asDropdown": True}],
        "panels": panels,
    }  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    folder.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(json.dumps(build(name), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
