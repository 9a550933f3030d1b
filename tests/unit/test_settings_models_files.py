from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftline.adapters.kafka import KafkaPublisher
from driftline.adapters.milvus import MilvusStore
from driftline.adapters.redis import RedisCache
from driftline.cli.connect import Connections
from driftline.cli.files import FileError, read
from driftline.cli.reference import PAGES
from driftline.core import service
from driftline.core.errors import ConfigError
from driftline.core.settings import AuthSettings, KafkaSettings, MilvusSettings, RedisSettings, load
from driftline.encode.settings import EncodeSettings
from driftline.ingest.settings import IngestSettings
from driftline.local import models
from driftline.retrieval.embeddings import plan_requests
from driftline.retrieval.evaluation import evaluate, ndcg
from driftline.web.auth import Keys


def test_settings_come_from_the_environment_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("kafka: {partitions: 3}\ntriton: {url: 'file:1'}\n")
    monkeypatch.setenv("DRIFTLINE_CONFIG", str(file))
    monkeypatch.setenv("DRIFTLINE_TRITON__URL", "env:1")
    settings = load(EncodeSettings)
    assert (settings.kafka.partitions, settings.triton.url) == (3, "env:1")


@pytest.mark.parametrize(
    "variable, value, expected",
    [
        ("DRIFTLINE_KAFKA__PARTITIONS", "many", "DRIFTLINE_KAFKA__PARTITIONS"),
        ("DRIFTLINE_KAFKA__SESSION_TIMEOUT_MS", "3000", "a third of session_timeout_ms"),
        ("DRIFTLINE_RUNNER__BATCH_RECORDS", "0", "DRIFTLINE_RUNNER__BATCH_RECORDS"),
        ("DRIFTLINE_CONFIG", "/nowhere.yaml", "/nowhere.yaml"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_clear_line(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert service.main("encode", EncodeSettings, lambda _: 0) == 78
    printed = capsys.readouterr().err
    assert expected in printed
    assert len(printed.splitlines()) == 1


def test_authentication_is_on_unless_switched_off() -> None:
    with pytest.raises(ConfigError, match="keys_file is required"):
        load(IngestSettings)


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_KAFKA__PARTITIONS", "0")
    monkeypatch.setenv("DRIFTLINE_RUNNER__MAX_IN_FLIGHT", "0")
    with pytest.raises(ConfigError, match=r"KAFKA__PARTITIONS.*RUNNER__MAX_IN_FLIGHT"):
        load(EncodeSettings)


@pytest.mark.parametrize(
    "content, expected",
    [
        ("# ok\nreader search short\n", "line 2"),
        ("reader owner 0123456789abcdef\n", "line 1"),
        ("# nobody\n", "holds no key"),
        (None, "No such file"),
    ],
)
def test_a_wrong_keys_file_is_told_without_a_key(content: str | None, expected: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    if content is not None:
        keys.write_text(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        Keys(AuthSettings(mode="api_key", keys_file=keys))
    assert "0123456789abcdef" not in str(caught.value)


SECRET = "hunter2"


@pytest.mark.parametrize(
    "variable, value",
    [
        ("DRIFTLINE_REDIS__URL", f"redis://:{SECRET}@cache:6379/0"),
        ("DRIFTLINE_REDIS__URL", f"redis://cache:6379/0?password={SECRET}"),
        ("DRIFTLINE_MILVUS__URI", f"http://root:{SECRET}@milvus:19530"),
        ("DRIFTLINE_TELEMETRY__OTLP_ENDPOINT", f"http://user:{SECRET}@collector:4318"),
        ("DRIFTLINE_KAFKA__SASL_PASSWORD", SECRET),
    ],
)
def test_a_password_in_a_setting_is_refused_and_not_repeated(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load(Connections)
    assert SECRET not in str(caught.value)
    assert variable.split("__")[0] in str(caught.value)


def test_sasl_without_a_password_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(ConfigError, match="sasl_password_file is required with SASL_SSL"):
        load(EncodeSettings)


@pytest.mark.parametrize("content, expected", [(b"", "empty"), (b"\n", "empty"), (b"\xff", "UTF-8"), (None, "No such")])
def test_a_secret_file_that_cannot_be_read_is_named(content: bytes | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"milvus.token_file {file}: .*{expected}"):
        MilvusStore(MilvusSettings(token_file=file))


def test_the_authorities_to_trust_are_read_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ConfigError, match=r"kafka\.ssl_cafile .*No such file"):
        KafkaPublisher(KafkaSettings(security_protocol="SSL", ssl_cafile=file))
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"kafka\.ssl_cafile"):
        KafkaPublisher(KafkaSettings(security_protocol="SSL", ssl_cafile=file))


def test_a_redis_url_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"redis\.url"):
        RedisCache(RedisSettings(url="cache:6379"))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_reference_pages_are_those_of_the_code(name: str) -> None:
    """`make docs` writes them."""
    assert (Path(__file__).parents[2] / "docs" / name).read_text() == PAGES[name]()


def a_model(folder: Path, **changes: object) -> Path:
    version = folder / "1"
    version.mkdir(parents=True)
    description = {
        "kind": "onnx", "output": 0, "pooling": "mean", "normalized": True, "dimension": 4, "max_tokens": 8,
        "query_prefix": "", "document_prefix": "",
    } | changes  # fmt: skip
    (version / "encoder.json").write_text(json.dumps(description))
    (version / "model.onnx").write_bytes(b"weights")
    (version / "tokenizer.json").write_text("{}")
    return version


def test_the_fingerprint_is_of_content_not_of_a_name(tmp_path: Path) -> None:
    fingerprint = models._files().fingerprint
    one = fingerprint(a_model(tmp_path / "one"))
    assert fingerprint(a_model(tmp_path / "two")) == one
    changes = [
        {"pooling": "cls"}, {"query_prefix": "query: "}, {"document_prefix": "passage: "}, {"normalized": False},
        {"dimension": 5}, {"max_tokens": 9}, {"output": 1},
    ]  # fmt: skip
    others = {fingerprint(a_model(tmp_path / str(i), **change)) for i, change in enumerate(changes)}
    weights = a_model(tmp_path / "w")
    (weights / "model.onnx").write_bytes(b"other weights")
    tokenizer = a_model(tmp_path / "t")
    (tokenizer / "tokenizer.json").write_text("{ }")
    assert len(others | {one, fingerprint(weights), fingerprint(tokenizer)}) == len(changes) + 3


def test_a_folder_with_an_onnx_file_becomes_an_entry(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "net.onnx").write_bytes(b"weights")
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(models.ModelError, match="--dimension"):
        models.add(tmp_path / "repository", "mine", str(source), {})
    added = models.add(tmp_path / "repository", "mine", str(source), {"dimension": 12, "query_prefix": 'say "q": '})
    config = (tmp_path / "repository/mine/config.pbtxt").read_text()
    assert "max_batch_size: 4\n" in config
    models.add(tmp_path / "gpu", "mine", str(source), {"dimension": 12}, max_batch=64)
    assert "max_batch_size: 64\n" in (tmp_path / "gpu/mine/config.pbtxt").read_text()
    assert added["fingerprint"] in config
    assert 'string_value: "say \\"q\\": "' in config
    (found,) = models.describe(tmp_path / "repository")
    assert "problem" not in found
    (tmp_path / "repository/mine/1/model.onnx").write_bytes(b"changed")
    (found,) = models.describe(tmp_path / "repository")
    assert "changed" in found["problem"]
    with pytest.raises(models.ModelError, match="needs a new name"):
        models.add(tmp_path / "repository", "mine", str(source), {"dimension": 12})


def test_requests_hold_texts_of_like_length() -> None:
    texts = ["a" * n for n in (1, 100, 2, 99, 3)]
    assert plan_requests(texts, 2) == [[1, 3], [4, 2], [0]]
    assert plan_requests([], 2) == []


def test_files_of_every_kind_are_read_with_their_line_numbers(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    (tmp_path / "a.jsonl").write_text(
        '{"id": "a", "title": "x"}\n\n{"id": "b", "fields": {"title": "y"}, "version": 3}\n'
    )
    (tmp_path / "a.csv").write_text('sku,title\n1,"two\nlines"\n2,\n')
    parquet.write_table(pa.table({"_id": [1, 2], "title": ["x", None]}), tmp_path / "a.parquet")
    lines = list(read(str(tmp_path / "a.jsonl"), None))
    assert [(x.number, x.body) for x in lines] == [
        (1, {"id": "a", "fields": {"title": "x"}}),
        (3, {"id": "b", "fields": {"title": "y"}, "version": 3}),
    ]
    assert [(x.number, x.body["id"]) for x in read(str(tmp_path / "a.csv"), "sku")] == [(3, "1"), (4, "2")]
    assert [x.body for x in read(str(tmp_path / "a.parquet"), None)] == [
        {"id": "1", "fields": {"title": "x"}},
        {"id": "2", "fields": {}},
    ]


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.jsonl", '{"id": "a"}\n{broken\n', "line 2"),
        ("a.jsonl", "[1]\n", "line 1: expected an object"),
        ("a.jsonl", '{"title": "x"}\n', "--id"),
        ("a.csv", "id,title\na,b,c\n", "line 2: more cells"),
    ],
)
def test_a_wrong_file_names_its_line(tmp_path: Path, name: str, content: str, expected: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FileError, match=expected):
        list(read(str(tmp_path / name), None))


def test_measures_are_those_of_the_books() -> None:
    grades = {"a": 3, "b": 2, "c": 0}
    assert ndcg(["a", "b"], grades, 10) == pytest.approx(1.0)
    assert ndcg(["x", "a"], grades, 10) == pytest.approx((3 / 1.584962500721156) / (3 + 2 / 1.584962500721156))
    result = evaluate({"q1": ["b", "a"], "q2": []}, {"q1": grades, "q2": {"z": 1}, "q3": {"z": 0}})
    assert (result["queries"], result["mrr"], result["recall@10"]) == (2, 0.5, 0.5)


def test_a_model_of_another_maker_is_no_encoder_entry(tmp_path: Path) -> None:
    (tmp_path / "theirs/1").mkdir(parents=True)
    (tmp_path / "theirs/config.pbtxt").write_text('name: "theirs"\n')
    assert models.describe(tmp_path) == []
    with pytest.raises(models.ModelError, match="models list"):
        models.read(tmp_path / "theirs")
