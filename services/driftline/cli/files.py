"""Reading documents from files: JSONL, CSV, Parquet, a BEIR folder, standard input."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from driftline.core import jsons
from driftline.core.errors import InvalidRequest
from driftline.core.values import shown

# A document has at most 60,000 bytes of fields; the longest line that is a document has some times as many.
_LONGEST_LINE = 10_000_000
_EMPTY: tuple[Any, ...] = (None, {}, [])


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
    try:
        match place.suffix.lower():
            case ".csv" | ".tsv":
                yield from _csv(place, id_field)
            case ".parquet":
                yield from _parquet(place, id_field)
            case _:
                with place.open("rb") as file:
                    yield from _jsonl(file, str(place), id_field)
    except OSError as error:
        raise FileError(f"{place}: {error.strerror or error}") from error


def objects(file: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, with their line from 1. Raises FileError."""
    lines = iter(lambda: file.readline(_LONGEST_LINE + 1), b"")
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}"
        if len(line) > _LONGEST_LINE:
            raise FileError(f"{where}: expected at most {_LONGEST_LINE} bytes")
        if not line.strip():
            continue
        try:
            row = jsons.parse(line, where)
        except InvalidRequest as error:
            raise FileError(str(error)) from error
        if not isinstance(row, dict):
            raise FileError(f"{where}: expected an object, found {shown(row)}")
        yield number, row


def _document(row: dict[str, Any], id_field: str | None, where: str) -> dict[str, Any]:
    """A bulk line. A row that has `fields` or `operation` already is one."""
    if id_field is None and ("fields" in row or "operation" in row):
        return row
    names = [id_field] if id_field else ["id", "_id"]
    name = next((n for n in names if row.get(n) is not None), None)
    if name is None:
        raise FileError(f"{where}: no {' or '.join(names)}; name the id's field with --id")
    given = row[name]
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise FileError(f"{where}: {name}: expected a string or an integer, found {shown(given)}")
    fields = {k: v for k, v in row.items() if k != name and v not in _EMPTY}
    return {"id": str(given), "fields": fields}


def _jsonl(file: BinaryIO, name: str, id_field: str | None) -> Iterator[Line]:
    for number, row in objects(file, name):
        yield Line(number, _document(row, id_field, f"{name}, line {number}"))


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
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise FileError(f"{path}: reading Parquet needs driftline[parquet]") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1_000):
            for row in batch.to_pylist():
                number += 1
                document = _document(row, id_field, f"{path}, row {number}")
                try:
                    orjson.dumps(document)
                except TypeError as error:
                    raise FileError(f"{path}, row {number}: JSON cannot hold it: {error}") from error
                yield Line(number, document)
    except (pyarrow.ArrowException, ValueError) as error:
        raise FileError(f"{path}: {' '.join(str(error).split())}") from error
