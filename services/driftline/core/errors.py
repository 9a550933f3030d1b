"""One exception tree; each leaf is a decision, not a location.

DriftlineError
├── ConfigError            a setting, a secret or a file of the operator is wrong: `main` prints it and exits with 78
├── InvalidRecord          this record can never be processed: dead-letter it alone, go on
│   └── RecordTooLarge     a record that the log can never take; `index` says which of those published
├── InvalidRequest         the caller's request is wrong: a 4xx problem that names the field
│   └── NotFound
├── Denied                 the caller may not do this: 401 without a known API key, 403 with one of a lesser role
├── Conflict               the request contradicts what is stored: 409
├── Overloaded             at the bound: 429, come back in `retry_after_seconds`
├── Unavailable            a dependency cannot be reached: pause, keep everything, try again
│   └── PartlyUnavailable  it answers, but not for this collection or encoder: only what needs that one waits
│       ├── NotLoaded      no such encoder is loaded; it may be there to be loaded
│       └── SpaceMismatch  vectors of two embedding spaces would meet: refused until someone acts
└── Fenced                 this process no longer owns the partition: stop writing, drop the batch
"""

from __future__ import annotations


class DriftlineError(Exception):
    """Root of everything Driftline raises on purpose."""


class ConfigError(DriftlineError):
    """What the operator gave is wrong: a setting, a secret, a file. The message is one clear line.

    Raised while a process is put together; nothing but its `main` ends the process for it.
    """


class InvalidRecord(DriftlineError):
    """A record that can never be processed. `reason` is a metric label: a short fixed word.

    `suspect` says that the fault may as well be ours or a dependency's: when such refusals come in numbers and from
    several producers, the runner stops before it sets more records aside (`core.breaker`).
    """

    def __init__(self, reason: str, detail: str = "", *, suspect: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.suspect = suspect


class RecordTooLarge(InvalidRecord):
    """A record is larger than the log takes. `index` is its place among the records that were published together."""

    def __init__(self, index: int, detail: str) -> None:
        super().__init__("record_too_large", detail)
        self.index = index


class InvalidRequest(DriftlineError):
    """A request that is wrong. `field` says where, `detail` what was expected."""

    status = 422

    def __init__(self, code: str, detail: str, field: str = "", status: int | None = None) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.code = code
        self.detail = detail
        self.field = field
        if status is not None:
            self.status = status


class NotFound(InvalidRequest):
    """The named collection or document does not exist."""

    status = 404


class Denied(DriftlineError):
    """The caller may not do this. `status` is 401 without a known API key, 403 with one of a lesser role."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Conflict(DriftlineError):
    """The request contradicts what is stored."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Unavailable(DriftlineError):
    """A dependency cannot be used now. Nothing is lost: the work is tried again."""

    def __init__(self, dependency: str, detail: str = "", retry_after_seconds: float = 1.0) -> None:
        super().__init__(f"{dependency} is unavailable: {detail}" if detail else f"{dependency} is unavailable")
        self.dependency = dependency
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class PartlyUnavailable(Unavailable):
    """A dependency answers, but what one collection needs of it cannot be used now: a store, an encoder.

    Work for other collections goes on; that of this one waits and is tried again.
    """


class NotLoaded(PartlyUnavailable):
    """No such encoder is loaded. It may be there to be loaded."""


class SpaceMismatch(PartlyUnavailable):
    """A model or a store does not belong to the embedding space that was asked for.

    It is an `Unavailable`, since somebody can put the right model back and nothing may be lost meanwhile.
    """

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(
            where,
            f"it is of embedding space {found or 'unknown'}, but {expected} is required; "
            "vectors of two spaces are never mixed",
            retry_after_seconds=5.0,
        )
        self.expected = expected
        self.found = found


class Overloaded(DriftlineError):
    """The service is at its bound. Nothing was accepted."""

    def __init__(self, detail: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class Fenced(DriftlineError):
    """The lease on the partitions ran out: another process may own them by now."""
