"""eval: the quality of a collection on a judged dataset in the BEIR layout."""

from __future__ import annotations

import csv
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from driftline.cli.client import Api
from driftline.cli.files import FileError, objects
from driftline.cli.output import console, emit_json, fail
from driftline.retrieval.evaluation import evaluate as measure


def read_queries(folder: Path) -> dict[str, str]:
    """Texts by id. Raises OSError and FileError."""
    path = folder / "queries.jsonl"
    queries: dict[str, str] = {}
    with path.open("rb") as file:
        for number, row in objects(file, str(path)):
            identity, text = row.get("_id"), row.get("text")
            if not isinstance(identity, (str, int)) or not isinstance(text, str):
                raise FileError(f"{path}, line {number}: expected an object with `_id` and `text`")
            queries[str(identity)] = text
    return queries


def read_qrels(folder: Path, split: str) -> dict[str, dict[str, int]]:
    """Grades by query and document. Raises OSError and FileError."""
    path = folder / "qrels" / f"{split}.tsv"
    qrels: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        try:
            for row in (reader := csv.DictReader(file, delimiter="\t")):
                query, document, score = (row.get(name) for name in ("query-id", "corpus-id", "score"))
                if not query or not document or not re.fullmatch("-?[0-9]{1,9}", score or ""):
                    raise FileError(
                        f"{path}, line {reader.line_num}: expected query-id, corpus-id and score, a whole number"
                    )
                qrels.setdefault(query, {})[document] = int(score or 0)
        except (csv.Error, UnicodeDecodeError) as error:
            raise FileError(f"{path}: {error}") from error
    return qrels


def run_queries(
    api: Api, collection: str, queries: dict[str, str], depth: int, rerank: int = 0
) -> dict[str, list[str]]:
    """Document ids per query, best first."""

    def one(item: tuple[str, str]) -> tuple[str, list[str]]:
        body = {"text": item[1], "limit": depth, "output_fields": [], "rerank": rerank}
        answer = api.call("POST", f"/v1/collections/{collection}/search", json=body)
        return item[0], [hit["id"] for hit in answer["hits"]]

    with ThreadPoolExecutor(4) as pool:
        return dict(pool.map(one, queries.items()))


def evaluate(
    collection: str,
    dataset: Annotated[Path, typer.Argument(help="folder with queries.jsonl and qrels/")],
    split: Annotated[str, typer.Option(help="which qrels")] = "test",
    rerank: Annotated[int, typer.Option(help="during an upgrade: rank so many hits by the new model")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """nDCG@10, recall@10, recall@100 and MRR of a collection that holds the dataset's corpus."""
    try:
        qrels = read_qrels(dataset, split)
        queries = {q: text for q, text in read_queries(dataset).items() if q in qrels}
    except (OSError, FileError) as error:
        fail(f"{dataset}: not a judged dataset in the BEIR layout: {error}")
    result = measure(run_queries(Api("query"), collection, queries, 100, rerank), qrels)
    if as_json:
        emit_json(result)
        return
    for name, value in result.items():
        console.print(f"{name:>12}  {value:.0f}" if name == "queries" else f"{name:>12}  {value:.4f}")
