from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.core import jsons, yamls
from driftline.core.errors import ConfigError, InvalidRequest
from driftline.core.limits import MAX_JSON_DEPTH

SERVICES = Path(jsons.__file__).parents[1]
# What these read was written by Driftline itself: its own stores, caches, answers and files.
OWN = {
    "core/jsons.py", "query/answer.py", "query/server.py", "cli/client.py", "cli/load.py", "adapters/milvus/schema.py",
    "local/state.py", "local/models.py", "local/delivery.py",
}  # fmt: skip

VALUES = st.recursive(
    st.none() | st.text('ab[]{}"\\,:\u20ac') | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a[{"\\', max_size=3), inner, max_size=3),
)


def levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


@given(VALUES)
def test_the_depth_is_that_of_the_value_whatever_its_strings_hold(value: Any) -> None:
    assert jsons.depth(orjson.dumps(value)) == levels(value)


def test_the_depth_is_found_beyond_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsons, "_BLOCK", 7)
    content = b'[{"[": "a]"}, [' + b'"{", ' * 20 + b"[[[[[]]]]]]]"
    assert jsons.depth(content) == 7


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_nesting_is_taken_to_the_limit_and_refused_beyond_it(opening: str, closing: str) -> None:
    at_the_limit = opening * MAX_JSON_DEPTH + ("1" if closing == "}" else "") + closing * MAX_JSON_DEPTH
    assert levels(jsons.parse(at_the_limit)) == MAX_JSON_DEPTH
    for deeper in (opening + at_the_limit + closing, opening * 100_000, opening * 1_000 + "1" + closing * 1_000):
        with pytest.raises(InvalidRequest) as caught:
            jsons.parse(deeper, "line")
        assert (caught.value.code, caught.value.field, caught.value.status) == ("too_deep", "line", 400)


def test_many_brackets_side_by_side_are_no_nesting() -> None:
    assert len(jsons.parse(b"[" + b",".join([b"[]"] * 500) + b"]")) == 500
    assert jsons.parse(b'"' + b"[" * 500 + b'"') == "[" * 500


@pytest.mark.parametrize(
    "content, code",
    [
        (b"", "malformed_json"), (b"NaN", "malformed_json"), (b"[1e999]", "malformed_json"),
        (b'"\\ud800"', "malformed_json"), (b"\xef\xbb\xbf1", "malformed_json"), (b'"\xff"', "invalid_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_utf8"), ('"\udcff"', "invalid_utf8"),
    ],
)  # fmt: skip
def test_what_is_not_strict_json_is_refused(content: bytes | str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        jsons.parse(content)
    assert (caught.value.code, caught.value.status) == (code, 400)


def test_json_from_outside_is_parsed_in_one_place_only() -> None:
    found = set()
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("orjson.loads", "json.loads", "json.load", "yaml.safe_load", "yaml.load") or (
                isinstance(node, ast.Attribute) and node.attr == "model_validate_json"
            ):
                found.add(path.relative_to(SERVICES).as_posix())
    assert found <= OWN | {"core/yamls.py"}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a: {b", "line 1"),
        ("[" * 1_000, "64 levels"),
        ("a: &x [1, 2]\nb: [*x, *x]", "line 1: anchors"),
        ("a: !!python/name:os.system x", "tags"),
        ("a: !!bool maybe", "tags"),
        ("a: 2020-13-45", "expected YAML"),
        ("a: 0b_", "expected YAML"),
        ("a: \x00", "expected YAML"),
    ],
)
def test_yaml_that_is_not_plain_data_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        yamls.parse(text, "settings.yaml")


def test_yaml_is_read() -> None:
    assert yamls.parse("a: {b: [1, 2.5, x, null]}", "s.yaml") == {"a": {"b": [1, 2.5, "x", None]}}
