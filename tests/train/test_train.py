"""The training loop on a model small enough for a CPU: `make test-train` (extra `train`)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from driftline.local.export import export_onnx
from driftline.train.loop import Encoder, Settings, train
from driftline.train.pairs import Pair, PairError, read_pairs

NOUNS = [f"noun{i}" for i in range(24)]
# A query names a thing by its other name: nothing but training can tell.
NAMES = {noun: f"alias{i}" for i, noun in enumerate(NOUNS)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BERT of two layers with a word tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *NOUNS, *NAMES.values(), "what", "is", "the", "a", "big", "small"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def pairs() -> list[Pair]:
    rng = random.Random(2)
    return [
        Pair(
            f"what is {NAMES[noun]}",
            f"the {rng.choice(['big', 'small'])} {noun}",
            (f"a {rng.choice(NOUNS[:3])} alias",),
        )
        for noun in NOUNS
        for _ in range(4)
    ]


def found_first(folder: Path) -> float:
    """Share of the queries whose document comes first."""
    encoder = Encoder(folder, "mean")
    queries = encoder.embed([f"what is {NAMES[n]}" for n in NOUNS], 16)
    documents = encoder.embed([f"the big {n}" for n in NOUNS], 16)
    return float(((queries @ documents.T).argmax(axis=1) == np.arange(len(NOUNS))).mean())


def moved(source: Path, target: Path) -> float:
    """How far the vectors of documents went: mean of 1 - cosine."""
    texts = [f"the small {n}" for n in NOUNS]
    before, after = (Encoder(folder, "mean").embed(texts, 16) for folder in (source, target))
    return float(1 - (before * after).sum(axis=1).mean())


def settings(**changes: object) -> Settings:
    values = {"epochs": 30, "batch": 16, "learning_rate": 3e-3, "distill_queries": 0.0, "distill_documents": 0.0}
    return Settings(**(values | changes))  # type: ignore[arg-type]


def test_training_learns_what_the_pairs_say(source: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    trained = train(source, pairs(), tmp_path / "new", settings(), report=lambda s, n, _: steps.append((s, n)))
    assert trained.last_loss < 0.3 * trained.first_loss
    assert found_first(source) < 0.3
    assert found_first(trained.folder) > 0.9
    assert steps[-1] == (trained.steps, trained.steps)


def test_distillation_holds_vectors_where_they_were(source: Path, tmp_path: Path) -> None:
    free = train(source, pairs(), tmp_path / "free", settings(epochs=10))
    held = train(source, pairs(), tmp_path / "held", settings(epochs=10, distill_queries=20.0, distill_documents=20.0))
    assert moved(source, held.folder) < 0.7 * moved(source, free.folder)


def test_compatible_queries_search_the_stored_vectors(source: Path, tmp_path: Path) -> None:
    given = pairs()
    stored = Encoder(source, "mean").embed([p.document for p in given], 16)

    def by_stored(folder: Path) -> float:
        queries = Encoder(folder, "mean").embed([p.query for p in given], 16)
        best = (queries @ stored.T).argmax(axis=1)
        return float(
            np.mean([given[b].document.split()[-1] == p.document.split()[-1] for b, p in zip(best, given, strict=True)])
        )

    plain = train(source, given, tmp_path / "plain", settings(epochs=15))
    fitting = train(source, given, tmp_path / "fitting", settings(epochs=15, compatibility=1.0), stored)
    assert by_stored(fitting.folder) > by_stored(plain.folder) + 0.2


def test_the_same_seed_trains_the_same_model(source: Path, tmp_path: Path) -> None:
    one, two = (train(source, pairs(), tmp_path / name, settings(epochs=2)) for name in ("one", "two"))
    assert one.last_loss == pytest.approx(two.last_loss, rel=1e-4)


def test_what_was_trained_is_exported_and_answers_alike(source: Path, tmp_path: Path) -> None:
    trained = train(source, pairs(), tmp_path / "new", settings(epochs=2))
    export_onnx(trained.folder, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    encoder = Encoder(trained.folder, "mean")
    text = "what is alias3"
    ids = np.array([encoder.tokenizer(text)["input_ids"]], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    names = {i.name for i in session.get_inputs()}
    (hidden,) = session.run(None, {k: v for k, v in feed.items() if k in names})
    pooled = hidden[0].mean(axis=0)
    np.testing.assert_allclose(pooled / np.linalg.norm(pooled), encoder.embed([text], 16)[0], atol=1e-4)


def test_what_cannot_be_trained_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two pairs"):
        train(source, pairs()[:1], tmp_path / "new", settings())
    with pytest.raises(ValueError, match="stored vector"):
        train(source, pairs(), tmp_path / "new", settings(compatibility=1.0))


@pytest.mark.parametrize(
    "line, words",
    [
        (b"{broken", "line 2"),
        (b'{"query": "", "document": "d"}', "line 2: query"),
        (b'{"query": "q"}', "line 2: document: Field required"),
        (b'{"query": "q", "document": "d", "weight": 2}', "line 2: weight"),
        (b'{"query": "q", "document": "d", "negatives": [1]}', "line 2: negatives.0"),
    ],
)
def test_a_bad_pair_names_its_line(tmp_path: Path, line: bytes, words: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b'{"query": "q", "document": "d"}\n' + line + b"\n")
    with pytest.raises(PairError, match=words):
        read_pairs(file)
