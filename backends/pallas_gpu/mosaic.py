"""Pallas for Mosaic GPU, imported where a kernel is made: its interface still differs by version."""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def pallas() -> tuple[Any, Any]:
    """The modules `pallas` and `pallas.mosaic_gpu`."""
    names = "jax.experimental.pallas", "jax.experimental.pallas.mosaic_gpu"
    pl, plgpu = (importlib.import_module(name) for name in names)
    return pl, plgpu


def load(ref: Any, layout: Any, optimized: bool = True) -> Any:
    """A value in registers, laid out so. JAX 0.10 asks for an index beside the reference."""
    _, plgpu = pallas()
    indexed = inspect.signature(plgpu.load).parameters["idx"].default is inspect.Parameter.empty
    return plgpu.load(*((ref, ()) if indexed else (ref,)), layout=layout, optimized=optimized)
