"""The wall clock of one service process, moved from outside while it runs.

libfaketime cannot be used: with it, `time.sleep` of CPython 3.11 fails with EINVAL (libfaketime 0.9.10). All that the
services and kafka-python know of the wall clock comes from `time.time` and `time.time_ns`, so these two are replaced.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

VARIABLE = "DRIFTLINE_TEST_CLOCK"
_OFFSET = struct.Struct("<q")


def move(file: Path, seconds: float) -> None:
    """Set the clock of whoever follows the file this much ahead of the true time, or behind it."""
    with file.open("r+b" if file.exists() else "w+b") as out:
        out.write(_OFFSET.pack(int(seconds * 1e9)))


def follow() -> None:
    """Replace this process's wall clock, if the variable names a file. Call it before anything is imported."""
    path = os.environ.get(VARIABLE, "")
    if not path:
        return
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    true_ns = time.time_ns

    def moved_ns() -> int:
        return true_ns() + int(_OFFSET.unpack_from(shared)[0])

    time.time_ns = moved_ns
    time.time = lambda: moved_ns() / 1e9
