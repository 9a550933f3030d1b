"""NVIDIA Triton over gRPC.

An encoder is a Triton model with one BYTES input `text` [1], an FP32 output `embedding` [dimension] (of a sparse one: a
column for each term, mostly 0) and the BYTES outputs `tokenizer_json` [1] and `space` [1]. Its config's parameters
describe the embedding space (see docs/models.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from driftline.adapters.triton_servers import CHANNEL, on_every_server
from driftline.core import metrics
from driftline.core.errors import InvalidRecord, NotLoaded, PartlyUnavailable, SpaceMismatch, Unavailable
from driftline.core.ports import EmbedAnswer
from driftline.core.records import Priority, Space
from driftline.core.settings import TritonSettings
from driftline.core.vectors import Matrix, Sparse

# Statuses of a request that did not get through, or was not waited for: whatever it held is not the reason.
_NOT_THROUGH = (
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
)
_ASK_SECONDS = 5.0
_DESCRIBED_FOR_SECONDS = 5.0


def space_of(model: str, config: Any) -> Space:
    """The space that a model's config declares. Raises PartlyUnavailable when it declares none."""
    values = {name: p.string_value for name, p in config.parameters.items()}
    try:
        return Space(
            fingerprint=values["space_fingerprint"],
            encoder=model,
            encoder_version=values["encoder_version"],
            # Of a sparse encoder the output has a column for each term: that is no dimension of a vector.
            dimension=1 if values.get("vectors") == "sparse" else int(values["dimension"]),
            normalized=values["normalized"] == "true",
            pooling=values["pooling"],
            query_prefix=values.get("query_prefix", ""),
            document_prefix=values.get("document_prefix", ""),
            max_tokens=int(values["max_tokens"]),
            max_batch=config.max_batch_size,
            kind=values.get("vectors", "dense"),
        )
    except (KeyError, ValueError) as error:
        raise PartlyUnavailable("triton", f"model {model!r} is not an encoder: its config lacks {error}") from error


class TritonEmbedder:
    """Thread-safe. Every answer is checked against the space that was asked for; the description of a model is read
    again every few seconds, so that a swapped one is noticed before it is asked, too."""

    def __init__(self, settings: TritonSettings) -> None:
        self._timeout = settings.timeout_seconds
        self._url = settings.url
        self._client = triton.InferenceServerClient(settings.url, channel_args=CHANNEL)
        self._pool = ThreadPoolExecutor(settings.max_in_flight, thread_name_prefix="triton")
        self._lock = threading.Lock()
        self._spaces: dict[str, tuple[float, Space]] = {}
        # Models that tell their space with every answer; those of other makers may not.
        self._telling: set[str] = set()

    def describe(self, encoder: str) -> Space:
        with self._lock:
            known = self._spaces.get(encoder)
        if known is not None and time.monotonic() - known[0] < _DESCRIBED_FOR_SECONDS:
            return known[1]
        try:
            config = self._client.get_model_config(encoder, client_timeout=10).config
        except InferenceServerException as error:
            self._check_ready(encoder, error)
            raise PartlyUnavailable("triton", f"encoder {encoder!r}: {_message(error)}") from error
        space = space_of(encoder, config)
        with self._lock:
            if any(output.name == "space" for output in config.output):
                self._telling.add(encoder)
            else:
                self._telling.discard(encoder)
            self._spaces[encoder] = (time.monotonic(), space)
        return space

    def load(self, encoder: str) -> None:
        try:
            on_every_server(self._url, lambda server: server.load_model(encoder, client_timeout=120))
        except InferenceServerException as error:
            self._check_reachable(error)
            raise NotLoaded("triton", f"encoder {encoder!r} was not loaded: {_message(error)}") from error
        self._forget(encoder)

    def loaded_everywhere(self, encoder: str) -> bool:
        try:
            return all(on_every_server(self._url, lambda server: server.is_model_ready(encoder, client_timeout=10)))
        except (InferenceServerException, grpc.RpcError) as error:
            raise Unavailable("triton", f"encoder {encoder!r}: {_message(error)}") from error

    def unload(self, encoder: str) -> None:
        try:
            on_every_server(self._url, lambda server: server.unload_model(encoder, client_timeout=120))
        except InferenceServerException as error:
            self._check_reachable(error)
            raise PartlyUnavailable("triton", f"encoder {encoder!r} was not unloaded: {_message(error)}") from error
        self._forget(encoder)

    def _check_reachable(self, error: InferenceServerException) -> None:
        """Raises Unavailable when the server does not answer either, `error` when it was never sent."""
        if _status(error) is None:
            raise error
        try:
            self._client.is_server_live(client_timeout=_ASK_SECONDS)
        except InferenceServerException as unreachable:
            raise Unavailable("triton", _message(unreachable)) from error

    def _check_ready(self, encoder: str, error: InferenceServerException) -> None:
        """Raises Unavailable when the server cannot be reached, and NotLoaded when it has no such encoder.

        A status alone does not tell: UNAVAILABLE stands for a server that is down and for a model that is unloaded,
        and other versions say NOT_FOUND or INVALID_ARGUMENT of one that is unknown.
        """
        self._check_reachable(error)
        try:
            ready = self._client.is_model_ready(encoder, client_timeout=_ASK_SECONDS)
        except InferenceServerException as unready:
            if _status(unready) in _NOT_THROUGH:
                raise Unavailable("triton", _message(unready)) from error
            ready = False
        if not ready:
            raise NotLoaded("triton", f"encoder {encoder!r}: {_message(error)}") from error

    def _forget(self, encoder: str) -> None:
        with self._lock:
            self._spaces.pop(encoder, None)

    def tokenizer_json(self, encoder: str) -> str:
        result = self._call(encoder, [""], Priority.CHANGE, "tokenizer_json")
        return bytes(result.as_numpy("tokenizer_json").reshape(-1)[0]).decode()

    def embed(
        self, encoder: str, space: str, requests: Sequence[Sequence[str]], priority: Priority = Priority.CHANGE
    ) -> list[EmbedAnswer]:  # fmt: skip
        found = self.describe(encoder)
        if found.fingerprint != space:
            raise SpaceMismatch(f"triton model {encoder!r}", space, found.fingerprint)
        if len(requests) == 1:
            answers = [self._one(encoder, found, requests[0], priority)]
        else:
            answers = list(self._pool.map(lambda texts: self._one(encoder, found, texts, priority), requests))
        if any(isinstance(answer, Unavailable) for answer in answers):
            self._forget(encoder)
        return answers

    def _one(self, encoder: str, space: Space, texts: Sequence[str], priority: Priority) -> EmbedAnswer:
        telling = encoder in self._telling
        try:
            result = self._call(encoder, texts, priority, "embedding", *(["space"] if telling else []))
        except (Unavailable, InvalidRecord) as error:
            return error
        if telling:
            told = bytes(result.as_numpy("space").reshape(-1)[0]).decode()
            if told != space.fingerprint:
                return SpaceMismatch(f"triton model {encoder!r}", space.fingerprint, told)
        values: Matrix = np.asarray(result.as_numpy("embedding"), dtype=np.float32)
        if (
            values.ndim != 2
            or len(values) != len(texts)
            or (space.kind == "dense" and values.shape[1] != space.dimension)
        ):
            return SpaceMismatch(f"triton model {encoder!r}", f"dimension {space.dimension}", f"shape {values.shape}")
        if not np.isfinite(values).all():
            return InvalidRecord(
                "encoder_returned_non_finite", f"encoder {encoder!r} returned NaN or infinity", suspect=True
            )
        if space.kind == "sparse" and (values < 0).any():
            return InvalidRecord(
                "encoder_returned_negative", f"sparse encoder {encoder!r} returned a weight below 0", suspect=True
            )
        metrics.TRITON_TEXTS.labels(encoder).inc(len(texts))
        return Sparse.of_dense(values) if space.kind == "sparse" else values

    def _call(self, encoder: str, texts: Sequence[str], priority: Priority, *outputs: str) -> Any:
        tensor = triton.InferInput("text", [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[t.encode()] for t in texts], dtype=np.object_))
        try:
            with metrics.TRITON_SECONDS.labels(encoder).time():
                return self._client.infer(
                    encoder,
                    [tensor],
                    outputs=[triton.InferRequestedOutput(output) for output in outputs],
                    # A model without priority levels takes it for its default.
                    priority=int(priority),
                    client_timeout=self._timeout,
                )
        except InferenceServerException as error:
            self._check_ready(encoder, error)
            if _status(error) in _NOT_THROUGH:
                raise Unavailable("triton", _message(error)) from error
            raise InvalidRecord("encode_failed", f"encoder {encoder!r}: {_message(error)}", suspect=True) from error

    def ping(self) -> None:
        try:
            ready = self._client.is_server_ready(client_timeout=_ASK_SECONDS)
        except InferenceServerException as error:
            raise Unavailable("triton", _message(error)) from error
        if not ready:
            raise Unavailable("triton", "the server is not ready")


def _status(error: InferenceServerException) -> grpc.StatusCode | None:
    """The gRPC status that tritonclient keeps as `str(code)`; None of an error of the client's own."""
    name = (error.status() or "").removeprefix("StatusCode.")
    return grpc.StatusCode[name] if name in grpc.StatusCode.__members__ else None


def _message(error: Exception) -> str:
    return str(error)[:500]
