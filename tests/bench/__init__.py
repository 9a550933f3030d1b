"""Benchmarks: ratios within one run, written to docs/benchmarks.md with the machine and the commit."""
