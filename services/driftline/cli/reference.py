"""The reference pages of docs/, written from the code: `make docs`. A test holds them to it."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel

from driftline.core import metrics
from driftline.core.limits import LIMITS
from driftline.core.topics import TOPICS

_NOTE = "<!-- Written by `make docs` from the code; do not edit. -->\n\n"


def metrics_page() -> str:
    rows = []
    for metric in sorted(metrics.REGISTRY.collect(), key=lambda m: m.name):
        collector = metrics.REGISTRY._names_to_collectors[metric.name]
        labels = ", ".join(f"`{name}`" for name in getattr(collector, "_labelnames", ())) or "-"
        rows.append(f"| `{metric.name}` | {metric.type} | {labels} | {metric.documentation} |")
    head = "# Metrics\n\n" + _NOTE + "Every service serves them at `/metrics`. Counters are exposed with `_total`.\n\n"
    return head + "| name | type | labels | what it is |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"


def topics_page() -> str:
    rows = [
        f"| `{t.name}` | {t.key} | {t.value} | {t.partitions or '`kafka.partitions`'} | "
        f"{', '.join(f'{k}={v}' for k, v in t.config.items())} | {', '.join(t.producers)} | "
        f"{', '.join(t.consumers)} | {t.why} |"
        for t in TOPICS
    ]
    head = (
        "# Topics\n\n"
        + _NOTE
        + "Names carry `kafka.topic_prefix`. `driftline topics create` makes and verifies them.\n\n"
    )
    columns = "| topic | key | value | partitions | configuration | from | to | why |\n" + "| --- " * 8 + "|\n"
    return head + columns + "\n".join(rows) + "\n"


def settings_page() -> str:
    from driftline.cli.settings import kinds

    parts = ["# Settings\n\n" + _NOTE]
    parts.append("Environment variables, or keys of the YAML file that `DRIFTLINE_CONFIG` names (sections and fields\n"
                 "in lower case). `driftline settings SERVICE` prints the effective ones.\n")  # fmt: skip
    for service, kind in kinds().items():
        parts.append(f"\n## {service}\n\n| variable | default | what it is |\n| --- | --- | --- |\n")
        for section, info in kind.model_fields.items():
            model = info.annotation
            assert isinstance(model, type)
            assert issubclass(model, BaseModel)
            shared = info.default if isinstance(info.default, BaseModel) else None
            for name, field in model.model_fields.items():
                default = getattr(shared, name) if shared is not None else field.default
                shown = "" if default in (None, "") else f"`{default}`"
                about = (field.description or "").replace("|", "\\|")
                parts.append(f"| `DRIFTLINE_{section.upper()}__{name.upper()}` | {shown} | {about} |\n")
    return "".join(parts)


def limits_page() -> str:
    head = (
        "# Limits\n\n"
        + _NOTE
        + "What is over them is refused before it is used: a request with a problem that names the field, a record\n"
        "with a dead letter that says why. How large bodies, pages and batches may be, and how long a caller may\n"
        "wait, are [settings](settings.md).\n\n"
    )
    rows = [f"| {limit.what} | {limit.most} |\n" for limit in LIMITS]
    return head + "| what | at most |\n| --- | --- |\n" + "".join(rows)


PAGES = {"limits.md": limits_page, "metrics.md": metrics_page, "topics.md": topics_page, "settings.md": settings_page}


def main(folder: Path) -> None:
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
