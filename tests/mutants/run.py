"""`python -m tests.mutants.run SERVICE [MUTANT]`: a real service, with a clock of its own and maybe a planted bug."""

from __future__ import annotations

import importlib
import sys

from tests.faults import clock


def main() -> int:
    clock.follow()
    service, *mutants = sys.argv[1:]
    module = importlib.import_module(f"driftline.{service}.__main__")
    if mutants:
        from tests.mutants.planted import apply

        apply(mutants[0])
    code: int = module.main()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
