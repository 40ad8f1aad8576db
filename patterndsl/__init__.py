"""patterndsl: an optimizing compiler for attention sparsity in JAX.

    import patterndsl as pd

    attention = pd.compile("causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))")
    out = attention(q, k, v)  # q [B, T, N, H], k and v [B, S, K, H]

Everything is imported when it is first used: reading a spec needs no JAX.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patterndsl.analysis import Report as Report
    from patterndsl.analysis import analyze as analyze
    from patterndsl.api import Attention as Attention
    from patterndsl.api import compile as compile
    from patterndsl.api import reference as reference
    from patterndsl.builders import Input as Input
    from patterndsl.builders import ceil as ceil
    from patterndsl.builders import floor as floor
    from patterndsl.builders import heads as heads
    from patterndsl.builders import layers as layers
    from patterndsl.builders import log2 as log2
    from patterndsl.builders import mix as mix
    from patterndsl.builders import n as n
    from patterndsl.builders import sqrt as sqrt
    from patterndsl.builders import where as where
    from patterndsl.calibration import Calibration as Calibration
    from patterndsl.calibration import calibrate as calibrate
    from patterndsl.centroids import update_centroids as update_centroids
    from patterndsl.diagnostics import SpecError as SpecError
    from patterndsl.frontend import load as load
    from patterndsl.frontend import parse as parse
    from patterndsl.plan.plan import Plan as Plan
    from patterndsl.shared import shared_keys as shared_keys
    from patterndsl.spec import Slots as Slots
    from patterndsl.spec import Spec as Spec
    from patterndsl.trees import tree_order as tree_order
    from patterndsl.tuning import Tuned as Tuned
    from patterndsl.tuning import autotune as autotune

__version__ = "0.1.0"

_HOME = {
    "patterndsl.analysis": ("Report", "analyze"),
    "patterndsl.api": ("Attention", "compile", "reference"),
    "patterndsl.calibration": ("Calibration", "calibrate"),
    "patterndsl.builders": ("Input", "ceil", "floor", "heads", "layers", "log2", "mix", "n", "sqrt", "where"),
    "patterndsl.centroids": ("update_centroids",),
    "patterndsl.diagnostics": ("SpecError",),
    "patterndsl.frontend": ("load", "parse"),
    "patterndsl.plan.plan": ("Plan",),
    "patterndsl.shared": ("shared_keys",),
    "patterndsl.spec": ("Slots", "Spec"),
    "patterndsl.trees": ("tree_order",),
    "patterndsl.tuning": ("Tuned", "autotune"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """The public names, and each built-in pattern (``global_`` for `global`, a word that Python keeps)."""
    if name in _MODULE:
        value = getattr(importlib.import_module(_MODULE[name]), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        from patterndsl.builders import pattern_function
        from patterndsl.patterns import builtin

        cls = builtin(name.removesuffix("_"))
        if cls is None:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=sys.modules[__name__])  # so that Python suggests one
        value = pattern_function(cls)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from patterndsl.patterns import builtins

    return sorted({"__version__", *_MODULE, *(f"{b}_" if b == "global" else b for b in builtins())})
