"""Write the chart's README from its values: `python deploy/tools/chart_readme.py [file]`.

A key is described by the comment `# -- ...` above it. The text around the table stands here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm/driftline"
_HEAD = """# Driftline's chart

<!-- Written by `make docs` from values.yaml; do not edit. -->

No images are published: build and push yours first, five services and Triton, from a checkout with Docker and
Python 3.11. Without `image.repository` the chart refuses to render.

```
make images REPOSITORY=registry.example.com/search/driftline
kubectl create secret generic driftline-keys --from-file=keys=keys.txt    # lines of `name role key`
helm install driftline ./helm/driftline -f helm/driftline/profiles/production.yaml \\
  --set image.repository=registry.example.com/search/driftline \\
  --set config.kafka.bootstrap_servers=kafka:9092 --set config.milvus.uri=http://milvus:19530 \\
  --set config.triton.url=triton:8001
```

Five services, stateless: what they know is in Kafka and Milvus, which are yours (or made by their operators:
`strimzi.enabled`, `milvus.enabled`). Profiles in `profiles/`: `small` (one of each, all that can be in the release),
`production`, `gpu` (Triton on GPUs, scaled by its queue), `multi-tenant` (a release per tenant on shared servers).

`config` takes every setting of [docs/settings.md](../../docs/settings.md) as it is; a service's own `config` wins. A
wrong one stops the pod with one line that names it. Secrets are mounted as files; only the collections job has its key
in the environment, where the command line reads it.

Upgrades of the chart roll one service at a time behind its PodDisruptionBudget; old and new versions run side by side
([releases](../../docs/releases.md)). Topics are created and verified by a hook before each.

Encode and index scale on lag (KEDA), never beyond `config.kafka.partitions`: the template refuses a value that would.
Query scales on CPU or, with `query.autoscaling.latency`, on the p95 of searches; Triton on the time that requests wait
in its queue.

Behind an Ingress each API has a host of its own; an HTTPRoute has all on one
([the front door](../../docs/decisions/0013-front-door.md)). Triton takes its models from its image, a volume or an
object store that `driftline models push` fills ([models](../../docs/models.md)). What has been tested with what is in
[operations](../../docs/operations.md).

## Values

| key | default | what it is |
| --- | --- | --- |
"""


def _comments(text: str) -> dict[str, str]:
    """Dotted key -> the comment above it."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    pending = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            pending = stripped[5:]
            continue
        if pending and stripped.startswith("# "):
            pending += stripped[1:]
            continue
        match = re.match(r"^( *)([A-Za-z]\w*):", line)
        if not match:
            continue
        indent = len(match[1])
        path = [*[p for p in path if p[0] < indent], (indent, match[2])]
        if pending:
            found[".".join(name for _, name in path)] = pending
            pending = ""
    return found


def _rows(values: Any, comments: dict[str, str], prefix: str = "") -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        nested = isinstance(value, dict) and value
        inner = any(known.startswith(f"{key}.") for known in comments)
        if key in comments and nested:
            rows.append((key, "", comments[key]))
        if nested and (inner or key not in comments or any(isinstance(v, dict | list) for v in value.values())):
            rows += _rows(value, comments, f"{key}.")
        elif nested:
            rows += [(f"{key}.{k}", json.dumps(v), "") for k, v in value.items()]
        else:
            rows.append((key, json.dumps(value), comments.get(key, "")))
    return rows


def build() -> str:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    rows = _rows(yaml.safe_load(text), _comments(text))
    return _HEAD + "".join(
        f"| `{key}` | {f'`{default}`' if default else ''} | {about.replace('|', '&#124;')} |\n"
        for key, default, about in rows
    )


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else CHART / "README.md"
    target.write_text(build(), encoding="utf-8")
