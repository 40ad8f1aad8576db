"""Short names for the constructors, for tables of specs."""

from __future__ import annotations

from patterndsl.builders import pattern_function
from patterndsl.patterns import builtin
from patterndsl.spec import Spec


def make(name: str, *args: object, **kwargs: object) -> Spec:
    """A built-in pattern by its name."""
    cls = builtin(name)
    assert cls is not None
    found = pattern_function(cls)
    return found if isinstance(found, Spec) else found(*args, **kwargs)
