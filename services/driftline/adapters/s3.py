"""An S3-compatible object store, as a model repository lies in it.

Credentials, region and, where the address has none, the endpoint come from where every AWS program looks: the
environment (AWS_ACCESS_KEY_ID and so on), ~/.aws, the identity of a pod or machine. They appear in no message.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as UnreachableError

from driftline.core.errors import ConfigError, DriftlineError, Unavailable

# As Triton writes addresses, and within what it understands: its path to an object holds nothing else.
_ADDRESS = re.compile(
    r"s3://(?:(?P<endpoint>https?://[A-Za-z0-9.-]+:[0-9]{1,5})/)?"
    r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[A-Za-z0-9._-]+)*)/?"
)


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and a prefix in it, without slashes around it. `endpoint` is empty for Amazon's or the environment's."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""

    @classmethod
    def parse(cls, address: str) -> Location:
        """Raises ConfigError, which does not repeat the address: somebody may have put a password into it."""
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise ConfigError(
                "expected s3://BUCKET/PREFIX, or s3://https://HOST:PORT/BUCKET/PREFIX for another store than Amazon's; "
                "a prefix holds letters, digits, '.', '_' and '-'"
            )
        return cls(found["bucket"], found["prefix"].strip("/"), found["endpoint"] or "")


class S3Folder:
    """What lies below one location. Every method raises ConfigError when the store refuses the caller or has no such
    bucket, and Unavailable when it cannot be reached."""

    def __init__(self, location: Location) -> None:
        self._bucket = location.bucket
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        with _told():
            session = boto3.session.Session()
            self._client = session.client(
                "s3",
                endpoint_url=location.endpoint or None,
                region_name=session.region_name or "us-east-1",
                config=Config(
                    connect_timeout=5,
                    read_timeout=60,
                    retries={"max_attempts": 3, "mode": "standard"},
                    # A bucket as part of the host's name needs a DNS entry that other stores lack.
                    s3={"addressing_style": "path" if location.endpoint else "auto"},
                ),
            )

    def names(self) -> list[str]:
        """The names of the folders directly below."""
        with _told():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix, Delimiter="/"
            )
            found = [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])]
        return [prefix.removeprefix(self._prefix).rstrip("/") for prefix in found]

    def paths(self, folder: str) -> list[str]:
        """Every object below a folder, relative to it."""
        start = f"{self._prefix}{folder}/"
        with _told():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
            return [o["Key"].removeprefix(start) for page in pages for o in page.get("Contents", [])]

    def read(self, path: str) -> bytes | None:
        """None where there is no such object."""
        with _told():
            try:
                content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"].read()
            except ClientError as error:
                if _code(error) == "NoSuchKey":
                    return None
                raise
        return content

    def fetch(self, path: str, into: Path) -> None:
        with _told():
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"]
            with into.open("wb") as file:
                for part in body.iter_chunks(1024 * 1024):
                    file.write(part)

    def holds(self, path: str, content: Path) -> bool:
        """Whether the object is there with these bytes; False, too, where the store keeps no checksums."""
        with _told():
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + path, ChecksumMode="ENABLED")
            except ClientError as error:
                if _status(error) == 404:
                    return False
                raise
        return str(head.get("ChecksumSHA256", "")) == _checksum(content)

    def put(self, path: str, content: Path) -> None:
        """The whole object or nothing; the store compares what arrives with the checksum that is sent along."""
        with _told(), content.open("rb") as file:
            self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + path, Body=file, ChecksumSHA256=_checksum(content)
            )

    def create(self, path: str, content: bytes) -> bool:
        """Put it unless there is one already; whether it was put. Of several callers at once, one is told True."""
        with _told():
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=content, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) in (409, 412):
                    return False
                raise
        return True


def _checksum(content: Path) -> str:
    digest = sha256()
    with content.open("rb") as file:
        while part := file.read(1024 * 1024):
            digest.update(part)
    return b64encode(digest.digest()).decode()


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _told() -> Iterator[None]:
    """The client's errors as ours, told by their kind and code. What they say in words may hold a key's name."""
    try:
        yield
    except ClientError as error:
        raise _meaning(_status(error), _code(error)) from error
    except (HTTPClientError, UnreachableError, IncompleteReadError) as error:
        raise Unavailable("the object store", f"{type(error).__name__}: is the address right?") from error
    except FlexibleChecksumError as error:
        raise ConfigError(
            "the object store holds other bytes than were sent: delete the entry, and push it again"
        ) from error
    except BotoCoreError as error:
        raise ConfigError(
            f"the object store cannot be used: {type(error).__name__}; give AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and AWS_DEFAULT_REGION, or a profile in ~/.aws"
        ) from error


def _meaning(status: int, code: str) -> DriftlineError:
    if status == 403:
        return ConfigError(f"the object store refuses these credentials: {code or 'forbidden'}")
    if code in ("NoSuchBucket", "NoSuchKey"):
        return ConfigError(f"the object store has no such {'bucket' if code == 'NoSuchBucket' else 'object'}")
    if status >= 500 or status == 429:
        return Unavailable("the object store", code)
    return ConfigError(f"the object store refuses the request: {code} ({status})")
