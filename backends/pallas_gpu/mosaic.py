"""Pallas for Mosaic GPU, imported where a kernel is made: its interface still differs by version."""

from __future__ import annotations

import importlib
from typing import Any


def pallas() -> tuple[Any, Any]:
    """The modules `pallas` and `pallas.mosaic_gpu`."""
    names = "jax.experimental.pallas", "jax.experimental.pallas.mosaic_gpu"
    pl, plgpu = (importlib.import_module(name) for name in names)
    return pl, plgpu
