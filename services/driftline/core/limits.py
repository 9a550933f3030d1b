"""What a request, a record or a definition may hold at most. docs/limits.md is written from this module.

Everything that comes from outside is held to these before it is used; the decoders of `core.codec` hold the records of
the pipeline's own topics to them too, since whoever may write to a topic need not be Driftline.
"""

from __future__ import annotations

from dataclasses import dataclass

# orjson takes 1,024 levels of nesting; its writer takes 254, and what recurses in Python (repr, pydantic, a walk over
# a filter) gives up at some 300 to 1,000. No document, filter or envelope of a connector needs more than a dozen.
MAX_JSON_DEPTH = 64

MAX_ID_BYTES = 512
MAX_TENANT_BYTES = 128
# Milvus holds a string of at most 65,535 bytes; the rest is room for its own framing.
MAX_FIELDS_BYTES = 60_000
MAX_CHUNK_BYTES = 65_000
MAX_CHUNKS = 1_000
MAX_KEYWORD_BYTES = 4_096
MAX_LIST_VALUES = 1_024
# JSON clients read integers exactly up to here.
MAX_VERSION = 2**53 - 1
# Milvus reads a literal as the negation of a 64-bit integer, so it cannot be asked for -2^63.
MAX_INTEGER = 2**63 - 1

MAX_FIELDS = 256
MAX_DESCRIPTION = 4_000
MAX_NAME = 63
MAX_INDEXES = 16
MAX_PROFILES = 64
MAX_STEPS = 16
MAX_DEPTH = 10_000
MAX_PASSAGES = 100
MAX_QUERY_TERMS = 16
MAX_TERM_WEIGHT = 100
# Documents that each index ranks at least where rankings are fused, by default: docs/benchmarks-retrieval.md is of it.
FUSION_WINDOW = 100
# Milvus' own limit for a vector.
MAX_DIMENSION = 32_768
# The square of a difference, summed over 32,768 dimensions, still is a float32.
MAX_VECTOR_VALUE = 1e15
MAX_GENERATION = 2**31 - 1
# Vectors of one record: one per live generation, of which an index has at most two.
MAX_NAMED_VECTORS = 64
# A compensation of 4,096 x 4,096 has 128 parts.
MAX_COMPENSATION_PARTS = 4_096
# Of one record of the control topic, of which a broker takes 1 MB by default.
MAX_STATISTICS_BYTES = 900_000

MAX_FILTER_DEPTH = 16
MAX_FILTER_CONDITIONS = 512
MAX_FILTER_VALUES = 4_096
MAX_FILTER_BYTES = 256_000

MAX_QUERY_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Limit:
    """A line of docs/limits.md."""

    what: str
    most: str


LIMITS = (
    Limit("levels of nesting of any JSON", f"{MAX_JSON_DEPTH}"),
    Limit("a document's id", f"{MAX_ID_BYTES} bytes of UTF-8, no control characters"),
    Limit("a tenant", f"{MAX_TENANT_BYTES} bytes of UTF-8, no control characters"),
    Limit("a document's fields, as JSON", f"{MAX_FIELDS_BYTES:,} bytes"),
    Limit("a value of a keyword field or of a keyword_list", f"{MAX_KEYWORD_BYTES:,} bytes"),
    Limit("values of a keyword_list or an integer_list", f"{MAX_LIST_VALUES:,}"),
    Limit("an integer", f"-(2^63 - 1) to 2^63 - 1 ({MAX_INTEGER})"),
    Limit("a float", "what a 64-bit float holds; no NaN, no infinity"),
    Limit("a date and time", "years 1 to 9999, microseconds"),
    Limit("an external version", "1 to 2^53 - 1"),
    Limit("chunks of a document", f"the collection's max_chunks, at most {MAX_CHUNKS:,}"),
    Limit("fields of a collection", f"{MAX_FIELDS}"),
    Limit("indexes of a collection", f"{MAX_INDEXES}"),
    Limit("profiles of a collection", f"{MAX_PROFILES}"),
    Limit("a collection's description", f"{MAX_DESCRIPTION:,} characters"),
    Limit(
        "a filter",
        f"{MAX_FILTER_DEPTH} levels, {MAX_FILTER_CONDITIONS} conditions, {MAX_FILTER_VALUES:,} values, "
        f"{MAX_FILTER_BYTES:,} bytes of strings",
    ),
    Limit("values of one `in`", f"{MAX_LIST_VALUES:,}"),
    Limit("a search's text", f"{MAX_QUERY_CHARACTERS:,} characters"),
    Limit("a search's vector", f"as many numbers as the space has, from -{MAX_VECTOR_VALUE:g} to {MAX_VECTOR_VALUE:g}"),
    Limit("a search's query", f"{MAX_QUERY_TERMS} terms, of weights from -{MAX_TERM_WEIGHT} to {MAX_TERM_WEIGHT}"),
    Limit("a plan", f"{MAX_STEPS} steps; each index once, and {MAX_DEPTH:,} documents of it"),
    Limit("a search's passages", f"{MAX_PASSAGES} of a document"),
    Limit("a search's output_fields", f"{MAX_FIELDS}"),
)
