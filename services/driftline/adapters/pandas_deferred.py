"""Import pymilvus without importing pandas.

pymilvus 3.0 imports pandas in five modules, for one thing: its older interface (`Collection`) takes data frames and
asks pandas for the kinds of default values. `MilvusClient`, which is all that is used here, never does, and pandas was
a third of the processor time that a service needed to import (docs/operations.md has the figures).

So pandas is put off, not replaced: while pymilvus is imported, stand-ins answer for `pandas` and `pandas.api.types`.
They know the few names that are bound at import; each loads the real pandas the moment it is called. Afterwards the
stand-ins are gone from `sys.modules`, and whoever imports pandas gets pandas.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class _DataFrameMeta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        # Without pandas in the process there is no data frame that the instance could be.
        real = getattr(sys.modules.get("pandas"), "DataFrame", None)
        return real is not None and real is not cls and isinstance(instance, real)

    def __call__(cls, *args: object, **kwargs: object) -> object:
        return import_module("pandas").DataFrame(*args, **kwargs)


class DataFrame(metaclass=_DataFrameMeta):
    """In annotations and `isinstance`, pandas' own class; called, it makes one."""


class _Deferred(ModuleType):
    """A module whose every other name is a function that calls the real module's."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        real = self.__name__

        def call(*args: object, **kwargs: object) -> object:
            return getattr(import_module(real), name)(*args, **kwargs)

        return call


def _stand_ins() -> dict[str, ModuleType]:
    pandas, api, types = (_Deferred(name) for name in ("pandas", "pandas.api", "pandas.api.types"))
    vars(pandas).update(__path__=[], api=api, DataFrame=DataFrame)
    vars(api).update(__path__=[], types=types)
    return {module.__name__: module for module in (pandas, api, types)}


@contextmanager
def pandas_deferred() -> Iterator[None]:
    """Imports in here get the stand-ins, unless pandas is there already. For imports at the top of a module only:
    another thread that imports pandas meanwhile would get them too."""
    if "pandas" in sys.modules:
        yield
        return
    stand_ins = _stand_ins()
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
