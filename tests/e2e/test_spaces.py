"""A model that is no longer what it was under its name: refused by Triton, by encode and by query; nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from driftline.adapters.triton import TritonEmbedder
from driftline.core.errors import Unavailable
from driftline.core.settings import TritonSettings
from driftline.local import models
from driftline.local.stack import Stack
from tests.client import User, until

NAME = "changing"


class Changing:
    """An encoder entry of the running Triton whose files a test changes."""

    def __init__(self, stack: Stack) -> None:
        self.triton = TritonEmbedder(TritonSettings(url=stack.addresses["triton"]))
        self.folder = stack.repository / NAME
        shutil.copytree(stack.repository / "hashing-64", self.folder)
        config = self.folder / "config.pbtxt"
        config.write_text(config.read_text().replace("hashing-64", NAME))
        self.files = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        self.fingerprint = self.made()
        self.triton.load(NAME)

    def made(self) -> str:
        """The fingerprint of the files as they are."""
        return str(models._files().fingerprint(self.folder / "1"))

    def change(self, what: str) -> None:
        description = self.folder / "1/encoder.json"
        content = json.loads(description.read_text())
        if what == "prefix":
            content["query_prefix"] = "query: "
        elif what == "pooling":
            content["pooling"] = "cls"
        else:
            tokenizer = self.folder / "1/tokenizer.json"
            tokenizer.write_text(tokenizer.read_text() + " ")
        description.write_text(json.dumps(content))

    def declare(self) -> None:
        """What somebody does who adds another model under the old name."""
        config = self.folder / "config.pbtxt"
        config.write_text(config.read_text().replace(self.fingerprint, self.made()))

    def put_back(self) -> None:
        for path, content in self.files.items():
            path.write_bytes(content)
        self.triton.load(NAME)

    def remove(self) -> None:
        self.triton.unload(NAME)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def changing(stack: Stack) -> Iterator[Changing]:
    model = Changing(stack)
    yield model
    model.remove()


@pytest.fixture
def user(stack: Stack) -> User:
    return User(stack)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["file", "prefix", "pooling"])
def test_a_changed_model_under_the_same_name_is_refused_everywhere(
    user: User, stack: Stack, changing: Changing, what: str
) -> None:
    name = user.create(encoder=NAME)
    user.put(name, "before", title="written before the change")
    changing.change(what)
    other = changing.made()
    assert other != changing.fingerprint
    try:
        # The files alone: Triton refuses to load what is not what the entry declares.
        with pytest.raises(Unavailable, match=f"(?s){other}.*{changing.fingerprint}.*`driftline models add`"):
            changing.triton.load(NAME)
        # The declaration too: Triton serves it, and no service of ours mixes it in.
        changing.declare()
        changing.triton.load(NAME)
        # At once: encode has read what the model is a moment ago, and must notice with the answer.
        waiting = user.put(name, "during", wait=False, title=f"written while the {what} was another")
        assert waiting["state"] == "accepted"
        refused = []

        def search_is_refused() -> bool:
            answer = user.query.post(
                f"/v1/collections/{name}/search", json={"text": f"never asked {what} {len(refused)}"}
            )
            refused.append(answer.json())
            return answer.status_code == 503

        until(search_is_refused, 40, every=0.5)
        assert refused[-1]["code"] == "space_mismatch"
        assert changing.fingerprint in refused[-1]["detail"] and other in refused[-1]["detail"]
        # The collection waits; encode goes on for all others, and is ready.
        waits = f'driftline_collection_waits{{collection="{name}"}} 1.0'
        until(lambda: waits in user.query.get(f"{stack.addresses['encode']}/metrics").text, 40, every=0.5)
        assert user.query.get(f"{stack.addresses['encode']}/readyz").status_code == 200
        other = user.create()
        assert user.put(other, "a", title="of another collection")["state"] == "searchable"
        assert user.count(name) == 1
    finally:
        changing.put_back()
    until(lambda: user.count(name) == 2, 60, every=0.5)
    assert set(user.ids(name, "written before the change")) == {"before", "during"}


def test_vectors_of_another_space_are_refused_in_a_search(user: User, changing: Changing) -> None:
    name = user.create(encoder=NAME)
    answer = user.query.post(
        f"/v1/collections/{name}/search", json={"vector": {"values": [0.1] * 64, "space": "f" * 32}}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "space_mismatch")
    assert changing.fingerprint in answer.json()["detail"]
