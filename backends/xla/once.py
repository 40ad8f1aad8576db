"""Functions that are differentiated once at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from patterndsl.diagnostics import SpecError
from patterndsl.diagnostics.runtime import UnsupportedByBackend


def once(f: Callable[..., Any], why: str) -> Callable[..., Any]:
    """``f``, a gradient, which is refused with a `SpecError` where it is to be differentiated: loops whose
    length is known at run time only have no reverse mode."""

    @jax.custom_vjp
    def gradient(*args: Any) -> Any:
        return f(*args)

    def refuse(*args: Any) -> Any:
        reason = f"no second derivatives of {why}"
        advice = "differentiate `pd.reference` twice, or leave the outer derivative to finite differences"
        raise SpecError(UnsupportedByBackend(backend="xla", reason=reason, advice=advice))

    gradient.defvjp(refuse, lambda *args: args)
    return gradient
