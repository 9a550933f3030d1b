"""models add, list, check, push, pull: the encoders of a Triton model repository."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from driftline.cli.client import home
from driftline.cli.output import console, emit_json, fail, table
from driftline.core.errors import ConfigError, Unavailable
from driftline.local import delivery, models
from driftline.local.stack import Stack

app = typer.Typer(help="Add, list and check encoders; bring them to a cluster.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]
_Repository = Annotated[Path | None, typer.Option(help="model repository; default: the local system's")]
_Address = Annotated[
    str,
    typer.Argument(help="s3://BUCKET/PREFIX, or s3://https://HOST:PORT/BUCKET/PREFIX for other stores than Amazon's"),
]


def _repository(given: Path | None) -> Path:
    return given or Stack(home()).repository


@app.command()
def add(
    name: str,
    source: Annotated[str, typer.Option("--from", help="a recipe, PACKAGE==VERSION, a folder, or an ONNX file")],
    repository: _Repository = None,
    pooling: Annotated[str | None, typer.Option(help="mean or cls")] = None,
    output: Annotated[int | None, typer.Option(help="index of the ONNX output to pool")] = None,
    dimension: Annotated[int | None, typer.Option()] = None,
    max_tokens: Annotated[int | None, typer.Option()] = None,
    normalized: Annotated[bool | None, typer.Option("--normalized/--raw")] = None,
    query_prefix: Annotated[str | None, typer.Option(help="put before every query")] = None,
    document_prefix: Annotated[str | None, typer.Option(help="put before every document text")] = None,
    instances: Annotated[int, typer.Option(help="instances of the model on one CPU server")] = 2,
    max_batch: Annotated[int | None, typer.Option(min=1, help="texts that run together; default: 4, for CPUs")] = None,
    as_json: _Json = False,
) -> None:
    """Build an encoder entry; a running local Triton loads it at once."""
    given: dict[str, Any] = {
        "pooling": pooling, "output": output, "dimension": dimension, "max_tokens": max_tokens,
        "normalized": normalized, "query_prefix": query_prefix, "document_prefix": document_prefix,
    }  # fmt: skip
    overrides = {k: v for k, v in given.items() if v is not None}
    if pooling not in (None, "mean", "cls"):
        fail("--pooling: expected mean or cls")
    try:
        description = models.add(_repository(repository), name, source, overrides, instances, max_batch)
    except models.ModelError as error:
        fail(str(error))
    if repository is None:
        _load(name)
    if as_json:
        emit_json(description)
    else:
        console.print(
            f"encoder [bold]{name}[/]: space {description['fingerprint']}, dimension {description['dimension']}"
        )


@app.command()
def train(
    output: Annotated[Path, typer.Argument(help="folder to write; `driftline models add NAME --from FOLDER` adds it")],
    source: Annotated[str, typer.Option("--from", help="recipe, package or Hugging Face style folder")],
    pairs: Annotated[Path, typer.Option(help='JSONL: {"query": ..., "document": ..., "negatives": [...]}')],
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    batch: Annotated[int, typer.Option(min=2)] = 32,
    learning_rate: Annotated[float, typer.Option(min=0)] = 2e-5,
    distill: Annotated[float, typer.Option(min=0, help="how strongly vectors are held where they were; 0: not")] = 1.0,
    as_json: _Json = False,
) -> None:
    """Continue training an encoder on query-document pairs (extra `train`; uses a GPU if there is one)."""
    from driftline.train.pairs import PairError, read_pairs

    try:
        from driftline.train.loop import Settings
        from driftline.train.loop import train as run

        given = read_pairs(pairs)
        with tempfile.TemporaryDirectory(prefix="driftline-train-") as scratch, Progress(console=console) as bar:
            recipe, folder = models.training_source(source, Path(scratch))
            task = bar.add_task("training", total=None)
            settings = Settings(
                epochs=epochs, batch=batch, learning_rate=learning_rate, distill_queries=distill,
                distill_documents=distill, pooling=recipe.pooling, query_prefix=recipe.query_prefix,
                document_prefix=recipe.document_prefix, document_tokens=recipe.max_tokens,
            )  # fmt: skip
            trained = run(
                folder, given, output, settings,
                report=lambda step, steps, loss: bar.update(
                    task, completed=step, total=steps, description=f"loss {loss:.3f}"
                ),
            )  # fmt: skip
    except ImportError:
        fail("training needs torch: install driftline[train]")
    except OSError as error:
        fail(f"{pairs}: {error.strerror or error}")
    except (PairError, ValueError, models.ModelError) as error:
        fail(str(error))
    if as_json:
        emit_json({**asdict(trained), "folder": str(trained.folder)})
    else:
        console.print(f"{trained.steps} steps, loss {trained.first_loss:.3f} to {trained.last_loss:.3f}")
        console.print(f"[dim]driftline models add NAME --from {output}[/]")


def _load(name: str) -> None:
    url = Stack(home()).addresses.get("triton", "")
    if not url or not Stack(home()).running():
        return
    from driftline.adapters.triton import TritonEmbedder
    from driftline.core.settings import TritonSettings

    try:
        TritonEmbedder(TritonSettings(url=url)).load(name)
    except Unavailable as error:
        fail(str(error))


def _folder(address: str) -> delivery.Folder:
    """Credentials come from the environment or ~/.aws, as for every AWS program. Raises ConfigError."""
    try:
        from driftline.adapters.s3 import Location, S3Folder
    except ImportError:
        fail("object stores need boto3: install driftline[s3]")
    return S3Folder(Location.parse(address))


@app.command()
def push(name: str, address: _Address, repository: _Repository = None, as_json: _Json = False) -> None:
    """Send an encoder to an object store that a cluster's Triton loads from. One that was interrupted is finished."""
    try:
        description = delivery.push(_folder(address), _repository(repository), name)
    except (models.ModelError, ConfigError, Unavailable) as error:
        fail(str(error))
    _delivered("pushed", description, as_json)


@app.command()
def pull(name: str, address: _Address, repository: _Repository = None, as_json: _Json = False) -> None:
    """Bring an encoder from an object store into the model repository, checked against its space."""
    try:
        description = delivery.pull(_folder(address), _repository(repository), name)
    except (models.ModelError, ConfigError, Unavailable) as error:
        fail(str(error))
    _delivered("pulled", description, as_json)


def _delivered(what: str, description: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(description)
    else:
        console.print(f"{what} [bold]{description['name']}[/]: space {description['fingerprint']}, compared")


@app.command("list")
def list_(
    repository: Annotated[str, typer.Option(help="folder or s3:// address; default: the local system's")] = "",
    as_json: _Json = False,
) -> None:
    """List the encoders of the repository, and the recipes that can be added."""
    try:
        if repository.startswith("s3://"):
            found = delivery.describe(_folder(repository))
        else:
            found = models.describe(_repository(Path(repository) if repository else None))
    except (models.ModelError, ConfigError, Unavailable) as error:
        fail(str(error))
    if as_json:
        emit_json(found)
        return
    table(
        ["encoder", "space", "dimension", "max tokens", "pooling", "problem"],
        [
            (d["name"], d["fingerprint"], d["dimension"], d["max_tokens"], d["pooling"], d.get("problem", ""))
            for d in found
        ],
    )
    console.print(f"[dim]recipes: {', '.join(models.RECIPES)}[/]")


@app.command()
def check(
    name: str,
    seconds: Annotated[float, typer.Option(help="how long to measure")] = 5.0,
    as_json: _Json = False,
) -> None:
    """Encode with a loaded encoder and print its throughput."""
    from driftline.adapters.triton import TritonEmbedder
    from driftline.cli.connect import connections

    embedder = TritonEmbedder(connections().triton)
    sentence = "A guitar is a stringed musical instrument, usually played with the fingers or a plectrum. "
    try:
        space = embedder.describe(name)
        texts = [[sentence * 4] * min(16, space.max_batch)] * 4
        (one,) = embedder.embed(name, space.fingerprint, [[sentence]])
        if isinstance(one, Exception):
            raise one
        begun, done = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            done += sum(len(r) for r in embedder.embed(name, space.fingerprint, texts) if not isinstance(r, Exception))
    except Unavailable as error:
        fail(str(error))
    rate = done / (time.monotonic() - begun)
    result = {
        "encoder": name,
        "space": space.fingerprint,
        "dimension": space.dimension,
        "texts_per_second": round(rate, 1),
    }
    if as_json:
        emit_json(result)
    else:
        console.print(f"[bold]{name}[/] loaded, space {space.fingerprint}, dimension {space.dimension}, "
                      f"{rate:.1f} texts/s of about 80 tokens")  # fmt: skip
