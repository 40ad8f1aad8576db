"""The pipeline: which passes run, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patterndsl.ir.nodes import Module
from patterndsl.ir.verify import verify
from patterndsl.passes.base import Pass
from patterndsl.passes.canonicalize import Canonicalize
from patterndsl.passes.empty import Empty
from patterndsl.passes.fold import Fold
from patterndsl.passes.inline import Inline
from patterndsl.passes.sink_causal import SinkCausal
from patterndsl.passes.split_disjoint import SplitDisjoint
from patterndsl.passes.subsume import Subsume

DEFAULT: tuple[Pass, ...] = (
    Inline(),
    Fold(),
    Canonicalize(),
    Subsume(),
    SinkCausal(),
    Empty(),
    Canonicalize(),
)
"""What `compile` runs. Common subexpressions are shared by construction, so no pass looks for them."""

ON_REQUEST: tuple[Pass, ...] = (SplitDisjoint(),)
"""Available by name; whether they pay is for a cost model to say."""

PASSES: dict[str, Pass] = {p.name: p for p in (*DEFAULT, *ON_REQUEST)}
"""Every pass, by name."""

Printer = Callable[[str, Module], None]


def run(module: Module, passes: Sequence[Pass | str] = DEFAULT, print_ir: Printer | None = None) -> Module:
    """The module after the passes, in order; the verifier looks at it before and after each.

    Params must have their values. ``print_ir`` is called with the name of each pass and what it left
    (``"input"`` first). Raises KeyError for an unknown name, SpecError where the module has no meaning.
    """
    chosen = [PASSES[p] if isinstance(p, str) else p for p in passes]
    verify(module)
    if print_ir is not None:
        print_ir("input", module)
    for p in chosen:
        module = p.apply(module)
        verify(module)
        if print_ir is not None:
            print_ir(p.name, module)
    return module


def optimize(module: Module) -> Module:
    """The module as `compile` plans it."""
    return run(module)
