"""Driftline: a streaming semantic index whose embedding model can change while it runs."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("driftline")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
