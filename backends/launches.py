"""Which kernels a backend launches, for those who compile and inspect them one by one.

A backend calls its kernels by `launch`, under a name; whoever wants to know them traces a call within
`launches`. So there is no second list of kernels that could differ from what runs.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Launch:
    """A kernel: a function of arrays, with trees of their shapes and dtypes."""

    name: str
    run: Callable[..., Any]
    operands: tuple[Any, ...]


_noted: contextvars.ContextVar[dict[str, Launch] | None] = contextvars.ContextVar("launches", default=None)


def launch(name: str, kernel: Callable[..., Any], *operands: Any) -> Any:
    """``kernel(*operands)``, trees of arrays. ``name``: the kernel's own within a plan."""
    noted = _noted.get()
    if noted is not None:
        noted.setdefault(name, Launch(name, kernel, jax.tree.map(_shape, operands)))
    return kernel(*operands)


@contextlib.contextmanager
def launches() -> Iterator[dict[str, Launch]]:
    """By name, the kernels of the calls that are traced within; a call that was traced before is not."""
    token = _noted.set({})
    try:
        noted = _noted.get()
        assert noted is not None
        yield noted
    finally:
        _noted.reset(token)


def _shape(x: Any) -> Any:
    make: Any = jax.ShapeDtypeStruct
    return make(x.shape, x.dtype)
