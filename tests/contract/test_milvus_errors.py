"""The table of Milvus' errors, on errors as pymilvus raises them. No server is needed."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from pymilvus.decorators import error_handler
from pymilvus.exceptions import (
    CollectionNotExistException,
    DataNotMatchException,
    DescribeCollectionException,
    ErrorCode,
    MilvusException,
    ParamError,
)
from pymilvus.grpc_gen import common_pb2

from driftline.adapters.milvus.errors import Meaning, meaning_of
from driftline.core.errors import Fenced


class Down(grpc.RpcError):  # type: ignore[misc]
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "connection refused"


def from_server(code: int, legacy: int = common_pb2.UnexpectedError, *, is_input_error: bool = False) -> Exception:
    return MilvusException(code, "some words", legacy, is_input_error=is_input_error)


@pytest.mark.parametrize(
    "error, meaning",
    [
        (Down(), Meaning.UNREACHABLE),
        (ConnectionResetError(), Meaning.UNREACHABLE),
        (MilvusException(grpc.StatusCode.UNAVAILABLE, "retry timeout"), Meaning.UNREACHABLE),
        # "Not ready" of 2.3, with its mark of what may be tried again, and of later ones, without.
        (from_server(1 | 1 << 16), Meaning.UNREACHABLE),
        (from_server(1), Meaning.UNREACHABLE),
        (from_server(8), Meaning.UNREACHABLE),
        (from_server(1401), Meaning.UNREACHABLE),
        (from_server(10_001), Meaning.UNREACHABLE),
        (from_server(0, common_pb2.RateLimit), Meaning.UNREACHABLE),
        (from_server(9), Meaning.PART),
        (from_server(100), Meaning.PART),
        (from_server(101), Meaning.PART),
        (from_server(103 | 1 << 16), Meaning.PART),
        (from_server(700), Meaning.PART),
        (from_server(0, common_pb2.CollectionNotExists), Meaning.PART),
        (DescribeCollectionException(100, "not there"), Meaning.PART),
        (CollectionNotExistException(message="not there"), Meaning.PART),
        (MilvusException(message="waited in vain for the load"), Meaning.PART),
        (from_server(1100), Meaning.REFUSED),
        (from_server(1700), Meaning.REFUSED),
        (from_server(0, common_pb2.IllegalArgument), Meaning.REFUSED),
        (from_server(2_099, is_input_error=True), Meaning.REFUSED),
        (DataNotMatchException(message="too big"), Meaning.REFUSED),
        (ParamError(message="limit"), Meaning.REFUSED),
        (from_server(65_535), Meaning.UNTOLD),
        (from_server(2_000), Meaning.UNTOLD),
    ],
)
def test_an_error_means_what_its_code_or_type_says(error: Exception, meaning: Meaning) -> None:
    assert meaning_of(error) == (meaning, error)


def raised(call: Callable[[], object]) -> Exception:
    """What comes out of pymilvus' own wrapping of everything that is raised under a call."""
    with pytest.raises(Exception) as caught:
        error_handler("call")(call)()
    return caught.value


@pytest.mark.parametrize(
    "cause, meaning",
    [
        (KeyError("a bug"), Meaning.BUG),
        (ValueError("a bug"), Meaning.BUG),
        (OSError("not a connection's"), Meaning.BUG),
        (Fenced("lost"), Meaning.BUG),
        (ConnectionRefusedError(), Meaning.UNREACHABLE),
    ],
)
def test_what_pymilvus_wraps_means_what_it_was(cause: Exception, meaning: Meaning) -> None:
    def call() -> None:
        raise cause

    error = raised(call)
    assert isinstance(error, MilvusException)
    assert error.code is ErrorCode.UNEXPECTED_ERROR
    assert meaning_of(error) == (meaning, cause)


def test_a_typed_error_of_pymilvus_outweighs_its_cause() -> None:
    error = DataNotMatchException(message="too big")
    error.__cause__ = ValueError("Value out of range")
    assert meaning_of(error)[0] is Meaning.REFUSED


def test_an_error_that_is_its_own_cause_is_told_once() -> None:
    error = MilvusException(message="waited in vain")
    error.__cause__ = error
    assert meaning_of(error) == (Meaning.PART, error)
