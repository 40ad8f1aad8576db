"""Kernels within StableHLO: custom calls that carry another dialect's module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def custom_calls(module: Any, target: str) -> Iterator[Any]:
    """The calls whose target's name begins so."""
    stack = [module.operation]
    while stack:
        operation = stack.pop()
        if operation.name == "stablehlo.custom_call":
            name: str = operation.attributes["call_target_name"].value
            if name.startswith(target):
                yield operation
        stack += [
            inner.operation for region in operation.regions for block in region for inner in block.operations
        ]


def parsed(bytecode: bytes, context: Any) -> str:
    """A module's text."""
    from jaxlib.mlir import ir

    before = context.allow_unregistered_dialects
    context.allow_unregistered_dialects = True
    try:
        return str(ir.Module.parse(bytecode, context))
    finally:
        context.allow_unregistered_dialects = before
