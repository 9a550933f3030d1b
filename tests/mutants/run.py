"""`python -m tests.mutants.run SERVICE MUTANT`: a real service with a planted bug."""

from __future__ import annotations

import importlib
import sys

from tests.mutants.planted import apply


def main() -> int:
    service, mutant = sys.argv[1:]
    module = importlib.import_module(f"driftline.{service}.__main__")
    apply(mutant)
    code: int = module.main()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
