"""Hash-consing: structurally equal nodes are the same object, so equality is identity."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar
from weakref import WeakValueDictionary


class Interned(type):
    """Metaclass of the IR's classes: constructing an equal node twice returns the first one.

    Classes are frozen dataclasses with ``eq=False``: identity then *is* structural equality, hashing
    is O(1), and common subexpressions are shared by construction.
    """

    _table: ClassVar[WeakValueDictionary[tuple[Any, ...], Any]] = WeakValueDictionary()

    def __init__(cls, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cls.__reduce__ = _reduce  # type: ignore[assignment]  # unpickled and copied through `__call__`

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        node = super().__call__(*args, **kwargs)
        # bool and int compare equal in Python; the type keeps True and 1 apart.
        values = tuple(getattr(node, f.name) for f in dataclasses.fields(node))
        key = (cls, *values, *(type(v) for v in values))
        return Interned._table.setdefault(key, node)


def _reduce(node: Any) -> tuple[Any, ...]:
    return type(node), tuple(getattr(node, f.name) for f in dataclasses.fields(node))
