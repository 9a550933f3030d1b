"""A text encoder for Triton's Python backend: tokenizer, ONNX Runtime, pooling and normalisation in one model.

Input `text` BYTES [1]; outputs `embedding` FP32 [dimension] and, only when asked for, `tokenizer_json` BYTES [1].
The version folder must have the fingerprint that config.pbtxt declares, or the model refuses to load: a file
changed under the same name is another embedding space.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from encoder_files import fingerprint, read_description  # noqa: E402

# Texts per run of the model on a GPU. On a CPU every text runs alone: a dynamically quantised model takes its scales
# from the whole batch, padding included, so a text's vector would depend on its neighbours (SciFact nDCG@10 .626
# instead of .647), and on one thread a batch gains nothing (73 against 70 texts/s).
_GPU_BATCH = 16


class _Onnx:
    """Mean- or CLS-pooled output of a transformer."""

    def __init__(self, folder: Path, description: dict, tokenizer: Tokenizer) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread an instance: instances are the parallelism, and more threads than cores crawl.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        providers = ["CUDAExecutionProvider"] if gpu else ["CPUExecutionProvider"]
        self._batch = _GPU_BATCH if gpu else 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._output = self._session.get_outputs()[description["output"]].name
        self._pooling = description["pooling"]
        self._tokenizer = tokenizer

    def embed(self, texts: list[str]) -> np.ndarray:
        encodings = self._tokenizer.encode_batch(texts)
        vectors: list[np.ndarray | None] = [None] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(encodings[i].ids))
        for run in (order[i : i + self._batch] for i in range(0, len(order), self._batch)):
            for i, vector in zip(run, self._run([encodings[i] for i in run])):
                vectors[i] = vector
        return np.stack(vectors)

    def _run(self, encodings: list) -> np.ndarray:
        longest = max(len(e.ids) for e in encodings)
        ids = np.zeros((len(encodings), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (output,) = self._session.run([self._output], {name: feed[name] for name in self._inputs})
        if output.ndim == 2:
            return output
        if self._pooling == "cls":
            return output[:, 0]
        weights = mask[:, :, None].astype(np.float32)
        return (output * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)


class _Hashing:
    """Signed feature hashing of tokens (Weinberger et al. 2009): lexical, free of weights, and nearly free of cost."""

    def __init__(self, folder: Path, description: dict, tokenizer: Tokenizer) -> None:
        del folder, tokenizer
        self._dimension = description["dimension"]
        self._counts = description["pooling"] == "counts"
        self._known: dict[str, tuple[int, float]] = {}

    def embed(self, texts: list[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                column, sign = self._place(word)
                vectors[row, column] += 1.0 if self._counts else sign
            if not self._counts and not vectors[row].any():
                vectors[row, 0] = 1.0
        return vectors

    def _place(self, word: str) -> tuple[int, float]:
        known = self._known.get(word)
        if known is None:
            digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
            known = (digest % self._dimension, 1.0 if digest >> 63 else -1.0)
            if len(self._known) < 200_000:
                self._known[word] = known
        return known


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads(args["model_config"])
        declared = config["parameters"]["space_fingerprint"]["string_value"]
        found = fingerprint(folder)
        if found != declared:
            raise pb_utils.TritonModelException(
                f"the files in {folder} make embedding space {found}, but config.pbtxt declares {declared}: a file, the "
                "pooling or a prefix was changed. Put it back, or add it as a new model with `driftline models add`."
            )
        self._space = found.encode()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        description = read_description(folder)
        self._normalized = description["normalized"]
        self._tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(self._tokenizer_json)
        tokenizer.no_padding()
        tokenizer.enable_truncation(description["max_tokens"])
        kinds = {"onnx": _Onnx, "hashing": _Hashing}
        self._encoder = kinds[description["kind"]](folder, description, tokenizer)

    def execute(self, requests: list) -> list:
        texts: list[str] = []
        spans: list[tuple[int, int]] = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
            spans.append((len(texts), len(texts) + len(rows)))
            texts += [row.decode("utf-8") for row in rows]
        wanted = [set(request.requested_output_names()) for request in requests]
        vectors = self._embed(texts) if any("embedding" in names for names in wanted) else None
        return [self._response(names, span, vectors) for names, span in zip(wanted, spans)]

    def _embed(self, texts: list[str]) -> np.ndarray:
        vectors = self._encoder.embed(texts).astype(np.float32)
        if self._normalized:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _response(self, names: set, span: tuple[int, int], vectors: np.ndarray | None) -> object:
        outputs = []
        count = span[1] - span[0]
        if "space" in names:
            # With every answer: whoever asked knows which model it was, also while another is put in its place.
            outputs.append(pb_utils.Tensor("space", np.array([[self._space]] * count, dtype=np.object_)))
        if "embedding" in names:
            outputs.append(pb_utils.Tensor("embedding", np.ascontiguousarray(vectors[span[0] : span[1]])))
        if "tokenizer_json" in names:
            rows = [[self._tokenizer_json.encode()]] * count
            outputs.append(pb_utils.Tensor("tokenizer_json", np.array(rows, dtype=np.object_)))
        return pb_utils.InferenceResponse(outputs)
