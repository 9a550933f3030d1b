"""Exporting a Hugging Face style folder to ONNX (extra `train`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def export_onnx(folder: Path, target: Path, pooling: str = "mean") -> None:
    """Write the transformer of a folder as ONNX: token ids and mask in, last hidden state out; with the pooling
    `splade` the weight of each term of the vocabulary in its place.

    Raises ModelError when the extra is not installed.
    """
    try:
        import torch
        from transformers import AutoModel, AutoModelForMaskedLM
    except ImportError as error:
        from driftline.local.models import ModelError

        raise ModelError("this model must be exported with torch: install driftline[train]") from error
    # Other attention implementations were not exportable by the legacy exporter when this was written.
    splade = pooling == "splade"
    kind = AutoModelForMaskedLM if splade else AutoModel
    model: Any = kind.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()
    wants_types = "token_type_ids" in model.forward.__code__.co_varnames and model.config.model_type != "mpnet"

    class Transformer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            kwargs = {"token_type_ids": token_type_ids} if wants_types else {}
            found = self.inner(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
            if not splade:
                return found.last_hidden_state
            # log(1 + ReLU) grows with its argument: the maximum over the tokens may be taken before it.
            masked = found.logits + (attention_mask[:, :, None].to(found.logits.dtype) - 1.0) * 1e4
            return torch.log1p(torch.relu(masked.max(dim=1).values))

    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if wants_types else [])
    example = tuple(torch.ones((2, 8), dtype=torch.long) for _ in names)
    output = "weights" if splade else "last_hidden_state"
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    axes[output] = {0: "batch"} if splade else {0: "batch", 1: "sequence"}
    with torch.no_grad():
        torch.onnx.export(
            Transformer(), example, str(target), input_names=names, output_names=[output],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
