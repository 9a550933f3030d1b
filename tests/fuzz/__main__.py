"""Fuzzing: inputs that nobody would send, to everything that reads what others wrote.

    make fuzz                           1,000,000 inputs; DRIFTLINE_SEED and DRIFTLINE_FUZZ_INPUTS set what is tried

The only exceptions allowed are those a parser says it raises. An input that breaks this is reduced and printed as a
case for tests/unit/test_fuzz_cases.py.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import sys
import time

from tests.fuzz.attempts import attempt
from tests.fuzz.targets import TARGETS

_MOST_FINDINGS = 20


def main() -> int:
    seed = int(os.environ.get("DRIFTLINE_SEED") or secrets.randbelow(2**32))
    inputs = int(os.environ.get("DRIFTLINE_FUZZ_INPUTS") or 1_000_000)
    print(f"seed {seed}, {inputs:,} inputs: DRIFTLINE_SEED={seed} DRIFTLINE_FUZZ_INPUTS={inputs} make fuzz", flush=True)
    logging.disable(logging.CRITICAL)
    shares = sum(target.share for target in TARGETS)
    begun, found = time.monotonic(), 0
    print(f"{'target':<14}{'inputs':>10}{'taken':>8}{'ends':>6}{'seconds':>9}{'slowest ms':>12}")
    total = 0
    for target in TARGETS:
        count = max(1, inputs * target.share // shares)
        tried = attempt(target, random.Random(f"{seed}/{target.name}"), count)
        total += tried.inputs
        print(tried.row(), flush=True)
        for finding in list(tried.findings.values())[:_MOST_FINDINGS]:
            found += 1
            print(finding.told(), flush=True)
    print(f"{total:,} inputs in {time.monotonic() - begun:.0f} s, {found} undocumented errors, seed {seed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
