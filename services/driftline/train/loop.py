"""Contrastive training with embedding distillation.

The recipe of Goswami et al., Query Drift Compensation (arXiv 2506.00037, section 4): InfoNCE from queries to documents
with in-batch and hard negatives at a fixed scale of 50, plus the mean of 1 - cosine between new and old vectors of
queries and of documents. The optional compatibility loss is InfoNCE from new queries to *stored old* document vectors
(Shen et al., Backward-Compatible Training, CVPR 2020): it trains queries to search the index that is there.
"""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.train.pairs import Pair

Matrix = NDArray[np.float32]
Report = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. Weights of 0 switch a loss off; `warmup_steps` of a linear schedule."""

    epochs: int = 1
    batch: int = 32
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup_steps: int = 50
    scale: float = 50.0
    distill_queries: float = 1.0
    distill_documents: float = 1.0
    compatibility: float = 0.0
    query_tokens: int = 64
    document_tokens: int = 256
    pooling: str = "mean"
    query_prefix: str = ""
    document_prefix: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """The new folder, and the mean loss of the first and of the last tenth of the steps."""

    folder: Path
    steps: int
    first_loss: float
    last_loss: float


def _silent(*_: float) -> None: ...


class Encoder:
    """A folder's model as it is served: tokenised, pooled, normalised."""

    def __init__(self, folder: Path, pooling: str, model: Any = None) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = (model or AutoModel.from_pretrained(folder, local_files_only=True)).to(self.device)
        self.pooling = pooling

    def __call__(self, texts: Sequence[str], max_tokens: int) -> Any:
        """Unit vectors, a torch tensor (len(texts), dimension) with gradients where they are on."""
        import torch

        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).to(self.device)
        if self.model.config.model_type == "mpnet":
            inputs.pop("token_type_ids", None)
        hidden = self.model(**inputs).last_hidden_state
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=-1)

    def embed(self, texts: Sequence[str], max_tokens: int, batch: int = 64) -> Matrix:
        """float32 (len(texts), dimension), without gradients; sorted by length inside, so that little is padding."""
        import torch

        self.model.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: list[Any] = [None] * len(texts)
        with torch.no_grad():
            for begin in range(0, len(order), batch):
                chosen = order[begin : begin + batch]
                for i, vector in zip(chosen, self([texts[i] for i in chosen], max_tokens).cpu().numpy(), strict=True):
                    found[i] = vector
        stacked: Matrix = np.stack(found).astype(np.float32)
        return stacked


def train(
    source: Path,
    pairs: Sequence[Pair],
    target: Path,
    settings: Settings,
    old_documents: Matrix | None = None,
    report: Report = _silent,
) -> Trained:
    """Train a copy of the model in `source` and write it to `target`, with the tokenizer as it is.

    `old_documents`, unit vectors (len(pairs), dimension), are the stored vectors of the pairs' documents, which the
    compatibility loss needs. Raises ValueError for settings and vectors that do not fit.
    """
    import torch

    if len(pairs) < 2:
        raise ValueError("expected at least two pairs: the negatives of one are the documents of the others")
    if settings.compatibility and (old_documents is None or len(old_documents) != len(pairs)):
        raise ValueError("compatibility needs a stored vector for the document of each pair")
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)  # noqa: S311 - the order of training
    encoder = Encoder(source, settings.pooling)
    teacher = Encoder(source, settings.pooling, copy.deepcopy(encoder.model))
    teacher.model.eval().requires_grad_(False)
    encoder.model.train()
    optimizer = torch.optim.AdamW(
        encoder.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.999)
    )
    batches = [b for _ in range(settings.epochs) for b in _batches(len(pairs), settings.batch, rng)]
    warmup = min(settings.warmup_steps, max(1, len(batches) // 4))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (len(batches) - step) / max(1, len(batches) - warmup))),
    )
    losses: list[float] = []
    for number, chosen in enumerate(batches, 1):
        stored = None if old_documents is None else old_documents[chosen]
        loss = _loss(encoder, teacher, [pairs[i] for i in chosen], stored, settings)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        report(number, len(batches), losses[-1])
    _write(encoder, source, target)
    tenth = max(1, len(losses) // 10)
    return Trained(target, len(losses), sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth)


def _batches(count: int, size: int, rng: random.Random) -> list[list[int]]:
    """Every pair once; a last batch of one has no negatives and is left out."""
    order = list(range(count))
    rng.shuffle(order)
    cut = [order[i : i + size] for i in range(0, count, size)]
    return [batch for batch in cut if len(batch) > 1]


def _loss(
    encoder: Encoder, teacher: Encoder, pairs: Sequence[Pair], stored: Matrix | None, settings: Settings
) -> Any:  # fmt: skip
    import torch

    queries = [settings.query_prefix + p.query for p in pairs]
    # A document that is the positive of two queries would be its own negative.
    documents = list(dict.fromkeys([p.document for p in pairs] + [n for p in pairs for n in p.negatives]))
    place = {text: i for i, text in enumerate(documents)}
    wanted = torch.tensor([place[p.document] for p in pairs], device=encoder.device)
    texts = [settings.document_prefix + d for d in documents]
    q, d = encoder(queries, settings.query_tokens), encoder(texts, settings.document_tokens)
    loss = torch.nn.functional.cross_entropy(settings.scale * q @ d.T, wanted)
    if settings.distill_queries or settings.distill_documents:
        with torch.no_grad():
            old_q = teacher(queries, settings.query_tokens)
            old_d = teacher(texts, settings.document_tokens)
        loss = loss + settings.distill_queries * (1 - (q * old_q).sum(-1)).mean()
        loss = loss + settings.distill_documents * (1 - (d * old_d).sum(-1)).mean()
    if settings.compatibility and stored is not None:
        scores = settings.scale * q @ torch.from_numpy(np.ascontiguousarray(stored)).to(q.device).T
        # The same document stored twice in a batch is no negative of itself.
        same = torch.tensor([[a.document == b.document for b in pairs] for a in pairs], device=q.device)
        scores = scores.masked_fill(same & ~torch.eye(len(pairs), dtype=torch.bool, device=q.device), float("-inf"))
        own = torch.arange(len(pairs), device=q.device)
        loss = loss + settings.compatibility * torch.nn.functional.cross_entropy(scores, own)
    return loss


def _write(encoder: Encoder, source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    encoder.model.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
