"""What an encoder on Triton answers, and what of it is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from driftline.adapters.memory import MemoryEmbedder
from driftline.adapters.triton import TritonEmbedder
from driftline.core.errors import InvalidRecord
from driftline.core.records import Priority, Space
from driftline.core.settings import TritonSettings
from driftline.core.vectors import Sparse

DENSE = MemoryEmbedder(3, "some").space
SPARSE = replace(DENSE, kind="sparse", dimension=1)


def answer(monkeypatch: pytest.MonkeyPatch, space: Space, *row: float) -> object:
    """What comes of one text's output; nobody is contacted."""
    embedder = TritonEmbedder(TritonSettings(url="127.0.0.1:1"))
    told = SimpleNamespace(as_numpy=lambda name: np.array([row], dtype=np.float32))
    monkeypatch.setattr(embedder, "_call", lambda *_: told)
    return embedder._one("some", space, ["a text"], Priority.CHANGE)


def test_a_sparse_encoder_gives_the_weights_above_0(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(monkeypatch, SPARSE, 0.0, 2.5, 0.0, 1.0)
    assert isinstance(found, Sparse)
    assert (found.terms.tolist(), found.weights.tolist()) == ([1, 3], [2.5, 1.0])


@pytest.mark.parametrize(
    ("space", "row", "reason"),
    [
        (SPARSE, (0.0, -0.5, 1.0), "encoder_returned_negative"),
        (SPARSE, (0.0, float("nan"), 1.0), "encoder_returned_non_finite"),
        (DENSE, (0.0, float("inf"), 1.0), "encoder_returned_non_finite"),
    ],
)
def test_numbers_that_are_no_vector_are_refused(
    monkeypatch: pytest.MonkeyPatch, space: Space, row: tuple[float, ...], reason: str
) -> None:
    found = answer(monkeypatch, space, *row)
    assert isinstance(found, InvalidRecord)
    assert (found.reason, found.suspect) == (reason, True)


def test_dense_vectors_may_be_below_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.asarray(answer(monkeypatch, DENSE, -1.0, 0.5, 0.0)).tolist() == [[-1.0, 0.5, 0.0]]
