"""The built-in patterns, one class in one file each; a new file here is found by itself."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from patterndsl.ir.nodes import Pattern
from patterndsl.patterns.base import REGISTRY, pattern

__all__ = ["builtin", "builtins", "pattern"]


@functools.cache
def builtins() -> dict[str, type[Pattern]]:
    """All built-in patterns by name."""
    for info in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{info.name}")
    return REGISTRY


def builtin(name: str) -> type[Pattern] | None:
    """The built-in of that name."""
    return builtins().get(name)
