"""Draw the dashboards from a running Prometheus: `python deploy/tools/render_dashboards.py URL [minutes] [folder]`.

For looking at them without Grafana: every panel's queries over the last minutes, in the place where it stands. A panel
whose queries give nothing says so.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DASHBOARDS = Path(__file__).parents[1] / "grafana/dashboards"
_UNITS = {"s": "s", "ops": "/s", "percentunit": "%"}


def series(client: httpx.Client, expression: str, minutes: float) -> list[dict[str, Any]]:
    now = time.time()
    answer = client.get(
        "/api/v1/query_range",
        params={
            "query": expression.replace("$__rate_interval", "1m"), "start": now - 60 * minutes, "end": now,
            "step": max(5.0, minutes * 60 / 200),
        },
    )  # fmt: skip
    answer.raise_for_status()
    return list(answer.json()["data"]["result"])


def legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def draw(client: httpx.Client, dashboard: dict[str, Any], minutes: float, target: Path) -> None:
    panels = dashboard["panels"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    figure = plt.figure(figsize=(18, height * 0.42), dpi=80)
    figure.suptitle(dashboard["title"], x=0.01, ha="left", fontsize=15, weight="bold")
    top = 1 - 0.5 / (height * 0.42)
    for panel in panels:
        at = panel["gridPos"]
        box = (at["x"] / 24 + 0.025, top * (1 - (at["y"] + at["h"]) / height) + 0.03,
               at["w"] / 24 - 0.04, top * at["h"] / height - 0.065)  # fmt: skip
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], loc="left", fontsize=10)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        scale = 100 if unit == "percentunit" else 1
        drawn = 0
        for query in panel["targets"]:
            for found in series(client, query["expr"], minutes):
                points = [(float(t), scale * float(v)) for t, v in found["values"] if v not in ("NaN", "+Inf", "-Inf")]
                if not points:
                    continue
                drawn += 1
                if panel["type"] == "stat":
                    value = f"{points[-1][1]:.3g} {_UNITS.get(unit, '')}"
                    axes.text(0.5, 0.4, value, ha="center", fontsize=17, color="#2f6fdf", transform=axes.transAxes)
                else:
                    begun = time.time()
                    axes.plot([(t - begun) / 60 for t, _ in points], [v for _, v in points], lw=1.6,
                              label=legend(query["legendFormat"], found["metric"]))  # fmt: skip
        if panel["type"] == "stat":
            axes.set_axis_off()
        elif drawn:
            axes.set_ylabel(_UNITS.get(unit, ""), fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(color="#e8ebef")
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
            axes.legend(fontsize=6.5, loc="upper left", ncols=2, frameon=False)
        if not drawn:
            axes.text(0.5, 0.5, "nothing to show", ha="center", fontsize=9, color="#8a94a1", transform=axes.transAxes)
            axes.set_axis_off()
    figure.savefig(target)
    plt.close(figure)


def main() -> None:
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path("docs/pictures")
    with httpx.Client(base_url=sys.argv[1], timeout=30, trust_env=False) as client:
        for file in sorted(DASHBOARDS.glob("*.json")):
            draw(client, json.loads(file.read_text(encoding="utf-8")), minutes, folder / f"dashboard-{file.stem}.png")


if __name__ == "__main__":
    main()
