"""Bugs planted on purpose: each must be caught by a test, else the tests have a hole (`make test-mutants`)."""
