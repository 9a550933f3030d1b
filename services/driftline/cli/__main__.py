"""`python -m driftline.cli` is the `driftline` command."""

from driftline.cli.main import main

main()
