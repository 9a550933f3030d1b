"""Reading documents from files: JSONL, CSV, Parquet, a BEIR folder, standard input."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


class FileError(Exception):
    """A line that cannot be read; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One document of a file: its line (from 1), and id and fields, or an operation as the bulk API takes it."""

    number: int
    body: dict[str, Any]


def read(path: str, id_field: str | None) -> Iterator[Line]:
    """Documents of a file, a BEIR folder, or `-`. Raises FileError."""
    if path == "-":
        yield from _jsonl(sys.stdin.buffer, "standard input", id_field)
        return
    place = Path(path)
    if not place.exists():
        raise FileError(f"{path}: no such file or folder")
    if place.is_dir():
        corpus = place / "corpus.jsonl"
        if not corpus.exists():
            raise FileError(f"{path}: a folder must be in the BEIR layout, with corpus.jsonl")
        place, id_field = corpus, id_field or "_id"
    match place.suffix.lower():
        case ".csv" | ".tsv":
            yield from _csv(place, id_field)
        case ".parquet":
            yield from _parquet(place, id_field)
        case _:
            with place.open("rb") as file:
                yield from _jsonl(file, str(place), id_field)


def _document(row: dict[str, Any], id_field: str | None, where: str) -> dict[str, Any]:
    """A bulk line. A row that has `fields` or `operation` already is one."""
    if id_field is None and ("fields" in row or "operation" in row):
        return row
    names = [id_field] if id_field else ["id", "_id"]
    name = next((n for n in names if n in row), None)
    if name is None:
        raise FileError(f"{where}: no {' or '.join(names)}; name the id's field with --id")
    fields = {k: v for k, v in row.items() if k != name and v not in (None, {}, [])}
    return {"id": str(row[name]), "fields": fields}


def _jsonl(file: Any, name: str, id_field: str | None) -> Iterator[Line]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise FileError(f"{where}: {error}") from error
        if not isinstance(row, dict):
            raise FileError(f"{where}: expected an object, found {type(row).__name__}")
        yield Line(number, _document(row, id_field, where))


def _csv(path: Path, id_field: str | None) -> Iterator[Line]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8", newline="") as file:
        try:
            for row in (reader := csv.DictReader(file, delimiter=delimiter, strict=True)):
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise FileError(f"{where}: more cells than the header has")
                yield Line(reader.line_num, _document({k: v for k, v in row.items() if v != ""}, id_field, where))
        except (csv.Error, UnicodeDecodeError) as error:
            raise FileError(f"{path}: {error}") from error


def _parquet(path: Path, id_field: str | None) -> Iterator[Line]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise FileError(f"{path}: reading Parquet needs driftline[parquet]") from error
    number = 0
    for batch in parquet.ParquetFile(path).iter_batches(batch_size=1_000):
        for row in batch.to_pylist():
            number += 1
            yield Line(number, _document(row, id_field, f"{path}, row {number}"))
