"""`hierarchical` and `tree`: the near and far split of the fast multipole method, by brute force."""

import numpy as np


def levels_and_slots(n, factor, leaf=None, levels=None):
    """The number of levels, and every slot as (level, start, stop): the tokens first, then level by level."""
    leaf = factor if leaf is None else leaf

    def size(level):
        return leaf * factor ** (level - 1)

    if levels is None:
        levels = 1
        while size(levels + 1) < n:
            levels += 1
    table = [(0, token, token + 1) for token in range(n)]
    for level in range(1, levels + 1):
        table += [(level, start, min(start + size(level), n)) for start in range(0, n, size(level))]
    return levels, table


def slots(q_positions, n, factor, window=1, leaf=None, levels=None, causal=False):
    """Dense 0/1 over [n_q, slots] and the slots' (level, start, stop).

    A query sees a slot where the slot is not near, and the slot of the next level around it is. With
    `causal`, every token of the slot must also be at or before the query.
    """
    leaf = factor if leaf is None else leaf
    top, table = levels_and_slots(n, factor, leaf, levels)

    def near(q, token, level):
        """Whether the chunk of `level` around `token` is near the query; nothing is farther than the top."""
        if level > top:
            return True
        size = leaf * factor ** (level - 1)
        return abs(token // size - int(q) // size) <= window

    kept = np.zeros((len(q_positions), len(table)), dtype=np.int64)
    for row, q in enumerate(q_positions):
        for column, (level, start, stop) in enumerate(table):
            if level == 0:
                seen = near(q, start, 1)
            else:
                seen = not near(q, start, level) and near(q, start, level + 1)
            kept[row, column] = seen and not (causal and stop - 1 > q)
    return kept, table
