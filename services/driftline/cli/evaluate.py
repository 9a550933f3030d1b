"""eval: the quality of a collection on a judged dataset in the BEIR layout, for ways of searching side by side."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from driftline.cli.client import Api
from driftline.cli.files import FileError, objects
from driftline.cli.output import emit_json, fail, table
from driftline.core import jsons
from driftline.core.errors import InvalidRequest
from driftline.drift.quality import Interval, paired
from driftline.retrieval.calibrate import fit_logistic
from driftline.retrieval.evaluation import Qrels, per_query


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


@dataclass(frozen=True, slots=True)
class Ran:
    """Document ids of each query, best first, their scores, and the milliseconds that each search took."""

    found: dict[str, list[str]]
    milliseconds: list[float]
    scores: dict[str, list[float]] = field(default_factory=dict)


def run_queries(
    api: Api, collection: str, queries: Mapping[str, str], depth: int, way: Mapping[str, Any] | None = None
) -> Ran:
    """`way` is what a search asks for beside its text. Raises ApiError."""

    def one(text: str) -> tuple[list[dict[str, Any]], float]:
        body = {"limit": depth, "output_fields": []} | dict(way or {}) | {"text": text}
        begun = time.perf_counter()
        answer = api.call("POST", f"/v1/collections/{collection}/search", json=body)
        return answer["hits"], 1000 * (time.perf_counter() - begun)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, queries.values()))
    hits = {query: found for query, (found, _) in zip(queries, answers, strict=True)}
    return Ran(
        {query: [hit["id"] for hit in found] for query, found in hits.items()},
        [took for _, took in answers],
        {query: [hit["score"] for hit in found] for query, found in hits.items()},
    )


def calibration(
    api: Api, collection: str, index: str, queries: Mapping[str, str], qrels: Qrels, depth: int = 100
) -> dict[str, float]:
    """Slope and intercept of the logistic curve from an index's scores to relevance. Raises ApiError."""
    ran = run_queries(api, collection, queries, depth, {"index": index})
    scores = [score for query in ran.found for score in ran.scores[query]]
    relevant = [qrels[query].get(i, 0) > 0 for query, ids in ran.found.items() for i in ids]
    slope, intercept = fit_logistic(scores, relevant)
    return {"slope": round(slope, 6), "intercept": round(intercept, 6)}


def read_way(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the body of NAME=JSON. Raises ValueError."""
    name, equals, content = text.partition("=")
    try:
        body = jsons.parse(content, "way") if equals and name.strip() else None
    except InvalidRequest as error:
        raise ValueError(f"--way {text!r}: {error}") from error
    if not isinstance(body, dict) or "text" in body:
        raise ValueError(f"--way {text!r}: expected NAME={{...}}, what a search asks for beside its text")
    return name.strip(), body


def compared(ran: Mapping[str, Ran], qrels: Qrels) -> list[dict[str, Any]]:
    """A row for each way: means with their 95 % intervals, differences to the first way, paired, and latency."""
    measured = {name: per_query(way.found, qrels) for name, way in ran.items()}
    first = next(iter(measured.values()))
    rows = []
    for name, values in measured.items():
        ndcg, base = values["ndcg@10"], first["ndcg@10"]
        row: dict[str, Any] = {"way": name, "queries": len(ndcg)}
        row |= {measure: round(sum(v) / len(v), 4) for measure, v in values.items()}
        row["ndcg@10 interval"] = _interval(paired(ndcg, [0.0] * len(ndcg)))
        row["difference"] = None if values is first else round(paired(ndcg, base).mean, 4)
        row["difference interval"] = None if values is first else _interval(paired(ndcg, base))
        row["p50 ms"], row["p95 ms"] = (round(float(q), 1) for q in np.quantile(ran[name].milliseconds, (0.5, 0.95)))
        rows.append(row)
    return rows


def _interval(found: Interval) -> tuple[float, float]:
    return round(found.low, 4), round(found.high, 4)


def evaluate(
    collection: str,
    dataset: Annotated[Path, typer.Argument(help="folder with queries.jsonl and qrels/")],
    split: Annotated[str, typer.Option(help="which qrels")] = "test",
    way: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            help="""what searches ask for beside their text, such as 'rerank={"rerank": 50}'; given more than once, the
            others are compared with the first""",
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INDEX",
            help="print the `calibrated` fusion of these indexes, fitted to the judged queries; measure it on others",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """nDCG@10, recall@10, recall@100 and MRR of a collection that holds the dataset's corpus, of ways of searching side
    by side.

    Milliseconds are without encoding the queries, and no answer comes from the cache.
    """
    try:
        ways = dict(map(read_way, way or ["default={}"]))
        qrels = read_qrels(dataset, split)
        relevant = {q for q, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
        queries = {q: text for q, text in read_queries(dataset).items() if q in relevant}
    except ValueError as error:
        fail(str(error))
    except (OSError, FileError) as error:
        fail(f"{dataset}: not a judged dataset in the BEIR layout: {error}")
    if not queries:
        fail(f"{dataset}: no query of the split {split!r} has a relevant document")
    api = Api("query")
    if calibrate:
        emit_json({"kind": "calibrated", "of": {i: calibration(api, collection, i, queries, qrels) for i in calibrate}})
        return
    # Each way finds the embeddings of the queries in the cache, and no answers: else the first would seem the slowest.
    run_queries(api, collection, queries, 1)
    asked = {name: {"explain": True} | body for name, body in ways.items()}
    rows = compared({name: run_queries(api, collection, queries, 100, body) for name, body in asked.items()}, qrels)
    if as_json:
        emit_json(rows)
        return
    table(_COLUMNS, [_shown(row) for row in rows])


_COLUMNS = (
    "way", "queries", "ndcg@10", "95 %", "to the first", "95 %", "recall@10", "recall@100", "mrr", "p50 ms", "p95 ms",
)  # fmt: skip


def _shown(row: Mapping[str, Any]) -> list[str]:
    low, high = row["ndcg@10 interval"]
    shown = [row["way"], str(row["queries"]), f"{row['ndcg@10']:.4f}", f"[{low:.4f}, {high:.4f}]"]
    if row["difference"] is None:
        shown += ["", ""]
    else:
        low, high = row["difference interval"]
        shown += [f"{row['difference']:+.4f}", f"[{low:+.4f}, {high:+.4f}]"]
    shown += [f"{row[measure]:.4f}" for measure in ("recall@10", "recall@100", "mrr")]
    return [*shown, str(row["p50 ms"]), str(row["p95 ms"])]
