"""Inlining of pattern functions."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from patterndsl.ir import resolve
from patterndsl.ir.nodes import Module
from patterndsl.passes.base import Pass


@dataclasses.dataclass(frozen=True)
class Inline(Pass):
    """Calls become the bodies of what they call, and the functions are gone.

    ``pattern near(m) = local(m); near(4) & causal`` -> ``local(4) & causal``
    """

    name: ClassVar[str] = "inline"

    def apply(self, module: Module) -> Module:
        return resolve.inline(module)
