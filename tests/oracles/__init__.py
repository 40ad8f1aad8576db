"""Dense masks written from the definitions alone, to test the library against.

Nothing in this package imports `patterndsl`. Every function takes absolute query positions (which are
negative where there are more queries than keys) and the number of keys, and loops over pairs.

- `oracle(name)(q_positions, n, **args)`: a built-in pattern, bool [n_q, n].
- `slots(q_positions, n, ...)`: `hierarchical` and the like; other patterns with summaries are in `summaries`.
- `published(name)(q_positions, n, **args)`: what a published model attends to, see `published`.
"""

import numpy as np

from . import grids, tokens
from .published import published
from .summaries import levels_and_slots, slots

__all__ = ["levels_and_slots", "oracle", "positions", "published", "slots"]


def positions(n: int, n_q: int | None = None) -> np.ndarray:
    """Absolute positions of n_q queries among n keys: the last query is at the last key."""
    n_q = n if n_q is None else n_q
    return np.arange(n_q) + (n - n_q)


def oracle(name: str):
    """The mask function of the built-in pattern `name`: (q_positions, n, **args) -> bool [n_q, n]."""
    for module in (tokens, grids):
        if name in module.MASKS:
            return module.MASKS[name]
    raise KeyError(name)
