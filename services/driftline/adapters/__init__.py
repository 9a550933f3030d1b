"""The ports of `core.ports` on real servers, and their in-memory twins. Only here is a vendor's client imported."""
