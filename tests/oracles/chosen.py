"""Patterns chosen from the data, from their definitions, one query and one block at a time in float64.

Every function takes q [n_q, heads, head_dim] and k [n, key_heads, head_dim] of one sequence, the positions
of the queries and how many keys exist, and returns bool [heads, n_q, n].
"""

import numpy as np


def select(
    q, k, positions, existing=None, *, block, count=None, mass=None, among=None, per="query", by="mean",
    share="head", scale=None,
):  # fmt: skip
    """``among``: bool [n_q, n], all where left out. ``count`` blocks, or the fewest of that ``mass``."""
    q, k = q.astype(np.float64), k.astype(np.float64)
    (n_q, heads, dim), n = q.shape, len(k)
    existing = n if existing is None else existing
    among = np.ones((n_q, n), bool) if among is None else among
    scale = 1 / np.sqrt(dim) if scale is None else scale
    group = heads // k.shape[1]
    blocks = [range(start, min(start + block, existing)) for start in range(0, existing, block)]
    mask = np.zeros((heads, n_q, n), bool)
    for together in parties(positions, existing, block, per):
        may = [c for c, tokens in enumerate(blocks) if among[np.ix_(together, tokens)].all()]
        scores = np.array([
            [score(scale * q[together, h].mean(axis=0), k[blocks[c], h // group], by) for c in may]
            for h in range(heads)
        ])  # fmt: skip
        if share == "group":
            scores = np.repeat(scores.reshape(heads // group, group, len(may)).sum(axis=1), group, axis=0)
        for h in range(heads):
            order = [may[i] for i in np.argsort(-scores[h], kind="stable")]
            taken = order[:count] if mass is None else order[: fewest(np.sort(scores[h])[::-1], mass)]
            for c in taken:
                mask[h][np.ix_(together, blocks[c])] = True
    return mask


def parties(positions, existing, block, per):
    """The indices of the queries that choose together."""
    if per == "query":
        return [[i] for i in range(len(positions))]
    found = {}
    for i, position in enumerate(positions):
        if position < existing:
            found.setdefault(position // block, []).append(i)
    return list(found.values())


def score(q, keys, by):
    if by == "mean":
        return q @ keys.mean(axis=0)
    if by == "max":
        return max(q @ key for key in keys)
    return sum(max(x * axis.min(), x * axis.max()) for x, axis in zip(q, keys.T, strict=True))


def fewest(best_first, mass):
    """How many of these scores, whose softmax weights sum to the mass or more."""
    weights = np.exp(best_first - best_first[:1].sum())
    for number in range(1, len(weights) + 1):
        if weights[:number].sum() >= mass * weights.sum():
            return number
    return 0


def lsh(q, k, rotations):
    """Reformer, section 2: h(x) = argmax([xR; −xR]), the same in any of the rounds."""
    heads, group = q.shape[1], q.shape[1] // k.shape[1]
    mask = np.zeros((heads, len(q), len(k)), bool)
    for h in range(heads):
        for r in rotations.astype(np.float64):
            own, keys = (np.argmax(np.hstack([x @ r, -(x @ r)]), axis=1) for x in (q[:, h], k[:, h // group]))
            mask[h] |= own[:, None] == keys[None, :]
    return mask


def vertical_slash(q, k, positions, existing=None, *, vertical, slash, last=64, first=0, near=0, scale=None):
    """MInference: what the last queries attend to, summed over columns and over diagonals."""
    q, k = q.astype(np.float64), k.astype(np.float64)
    (n_q, heads, dim), n = q.shape, len(k)
    existing = n if existing is None else existing
    scale = 1 / np.sqrt(dim) if scale is None else scale
    asked = [i for i in range(n_q) if positions[i] < existing][-last:]
    mask = np.zeros((heads, n_q, n), bool)
    for h in range(heads):
        columns, diagonals = np.zeros(existing), np.zeros(existing)
        for i in asked:
            seen = range(min(positions[i] + 1, existing))
            if len(seen):
                weights = np.exp(scale * (k[seen, h // (heads // k.shape[1])] @ q[i, h]))
                weights /= weights.sum()
                for key, weight in zip(seen, weights, strict=True):
                    columns[key] += weight
                    diagonals[positions[i] - key] += weight
        columns[:first], diagonals[:near] = np.inf, np.inf
        some = (set(np.argsort(-x, kind="stable")[:m]) for x, m in ((columns, vertical), (diagonals, slash)))
        kept_columns, kept_diagonals = some
        for i, position in enumerate(positions):
            for key in range(min(position + 1, existing)):
                mask[h, i, key] = key in kept_columns or position - key in kept_diagonals
    return mask


def cluster(q, k, positions, existing=None, *, centroids, size):
    """Routing Transformer, algorithm 1: each centroid's most similar queries and keys see each other.
    ``centroids`` [heads, count, head_dim]."""
    (n_q, heads, _), n = q.shape, len(k)
    existing = n if existing is None else existing
    mask = np.zeros((heads, n_q, n), bool)
    for h in range(heads):
        for centroid in centroids[h].astype(np.float64):

            def best(vectors, among, centroid=centroid):
                cosine = {i: x @ centroid / np.sqrt(x @ x) for i in among for x in [vectors[i].astype(float)]}
                return sorted(among, key=lambda i: -cosine[i])[:size]

            queries = best(q[:, h], [i for i in range(n_q) if positions[i] < existing])
            mask[h][np.ix_(queries, best(k[:, h // (heads // k.shape[1])], range(existing)))] = True
    return mask


def moba(q, k, positions, *, block, top):
    """MoBA, equations 3 to 7 (and the authors' `moba_naive`): the block of the query always, of the earlier
    ones those whose mean keys score best, `top` blocks in all; causal."""
    heads, n = q.shape[1], len(k)
    group = heads // k.shape[1]
    mask = np.zeros((heads, len(q), n), bool)
    for h, i in np.ndindex(heads, len(q)):
        position = positions[i]
        keys, own = k[:, h // group].astype(np.float64), position // block
        gates = {c: q[i, h] @ keys[c * block : (c + 1) * block].mean(axis=0) for c in range(own)}
        gates[own] = np.inf
        for c in sorted(gates, key=lambda c: -gates[c])[:top]:
            mask[h, i, c * block : (c + 1) * block] = True
        mask[h, i, position + 1 :] = False
    return mask


def quest(q, k, *, page, pages):
    """Quest's criterion for the query of a decoding step: every coordinate's larger product, summed."""
    (heads, _), n = q.shape, len(k)
    mask = np.zeros((heads, n), bool)
    for h in range(heads):
        keys = k[:, h // (heads // k.shape[1])].astype(np.float64)
        bounds = []
        for start in range(0, n, page):
            m, big = keys[start : start + page].min(axis=0), keys[start : start + page].max(axis=0)
            bounds.append(np.maximum(q[h] * m, q[h] * big).sum())
        for c in np.argsort(-np.array(bounds), kind="stable")[:pages]:
            mask[h, c * page : (c + 1) * page] = True
    return mask
