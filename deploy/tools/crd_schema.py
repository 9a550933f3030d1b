"""Make a test's JSON schema from a published CustomResourceDefinition.

`python deploy/tools/crd_schema.py CRD.yaml VERSION SOURCE > tests/deploy/schemas/KIND.json`. The schema refuses unknown
fields, as the API server does with strict field validation. Descriptions and the status are left out. Rules in CEL
(x-kubernetes-validations) are kept, but a JSON schema's validator does not know them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml


def strict(schema: Any) -> Any:
    """Without descriptions, and closed wherever the CRD lists the properties and does not say otherwise."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {k: strict(v) for k, v in schema.items() if not (k == "description" and isinstance(v, str))}
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
        found["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    listed = isinstance(found.get("properties"), dict) and found.get("type") == "object"
    if listed and "additionalProperties" not in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def build(definition: dict[str, Any], version: str, source: str) -> dict[str, Any]:
    """The schema of one served version. Raises KeyError when the definition does not serve it."""
    spec = definition["spec"]
    served = {v["name"]: v for v in spec["versions"] if v["served"]}
    schema: dict[str, Any] = strict(served[version]["schema"]["openAPIV3Schema"])
    schema["properties"].pop("status", None)
    schema["properties"] |= {
        "apiVersion": {"const": f"{spec['group']}/{version}"},
        "kind": {"const": spec["names"]["kind"]},
        "metadata": {"type": "object", "required": ["name"]},
    }
    return {
        "$comment": f"{source}, by deploy/tools/crd_schema.py",
        **schema,
        "required": ["apiVersion", "kind", "spec"],
    }


if __name__ == "__main__":
    given = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(build(given, sys.argv[2], sys.argv[3]), separators=(",", ":")))
