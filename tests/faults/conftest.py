"""One arena for the tests that hurt it; each uses collections of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.arena import Arena


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    made = Arena(tmp_path_factory.mktemp("arena"))
    made.up()
    yield made
    made.down()
