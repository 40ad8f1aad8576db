"""Summaries by brute force: the near and far split of the fast multipole method, and chunks of one length.

Each returns dense 0/1 over [n_q, slots] and the slots' (level, start, stop).
"""

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


def summary_of_summaries(x, length, level, start, reduce, factor, leaf):
    """The vector of the chunk of `level` that begins at token `start`, of x [tokens, …] of which `length`
    exist: what `reduce` makes of a list of vectors, the chunk's tokens, or above level 1 its summaries."""
    if level == 0:
        return x[start]
    size, step = leaf * factor ** (level - 1), 1 if level == 1 else leaf * factor ** (level - 2)
    inside = [s for s in range(start, start + size, step) if s < length]
    return reduce([summary_of_summaries(x, length, level - 1, s, reduce, factor, leaf) for s in inside])


def seen(q_positions, n, table, sees):
    """``sees(q, level, start, stop)`` for each query and slot; the table holds the tokens, too."""
    table = [(0, token, token + 1) for token in range(n)] + table
    kept = [[int(sees(int(q), *slot)) for slot in table] for q in q_positions]
    return np.array(kept, dtype=np.int64).reshape(len(q_positions), len(table)), table


def chunks(n, size, stride=None, whole=False):
    """The slots of `pool`: one chunk after the other, until one reaches the end."""
    stride = size if stride is None else stride
    table = []
    for start in range(0, n, stride):
        if start + size <= n:
            table.append((1, start, start + size))
            if start + size == n and not whole:
                break
        elif not whole:
            table.append((1, start, n))
            break
    return table


def full_blocks(n, block):
    """The slots of `tglobal`, as LongT5 numbers its blocks: what is left over joins the last full one."""
    members = {}
    for token in range(n):
        members.setdefault(min(token // block, n // block - 1), []).append(token)
    return [(1, tokens[0], tokens[-1] + 1) for number, tokens in sorted(members.items()) if number >= 0]


def longt5(q_positions, n, radius, block):
    def sees(q, level, start, stop):
        return level == 1 or abs(q - start) <= radius

    return seen(q_positions, n, full_blocks(n, block), sees)


def longt5_decoder(q_positions, n, radius, block):
    """A query sees the blocks before its own; tokens after the last full block make none."""

    def sees(q, level, start, stop):
        return start // block < q // block if level == 1 else 0 <= q - start <= radius

    return seen(q_positions, n, chunks(n, block, whole=True), sees)


def combiner(q_positions, n, segment):
    def sees(q, level, start, stop):
        own = q // segment
        return start // segment < own if level == 1 else start // segment == own and start <= q

    return seen(q_positions, n, chunks(n, segment), sees)


def combiner_bidirectional(q_positions, n, segment):
    def sees(q, level, start, stop):
        return level == 1 or start // segment == q // segment

    return seen(q_positions, n, chunks(n, segment), sees)


def compressive(q_positions, n, segment, memory, compressed, rate):
    """Segment by segment: what falls out of the memory is compressed, and the oldest of it forgotten."""

    def sees(q, level, start, stop):
        first = q // segment * segment
        if level == 0:
            return first - memory <= start <= q
        evicted = range(max(first - memory, 0))
        packed = [evicted[i : i + rate] for i in range(0, len(evicted), rate)]
        return (start, stop) in [(p.start, p.stop) for p in packed if len(p) == rate][-compressed:]

    return seen(q_positions, n, chunks(n, rate), sees)
