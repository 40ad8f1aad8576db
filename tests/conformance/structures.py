"""What hand-made plans are made of: patterns, as terms over small n, and styles of scheduling them."""

import jax.numpy as jnp

from patterndsl.ir.expr import FALSE, TRUE, C, K, Q, where
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS, Term
from tests.plan.handmade import Style

N = 43
CAUSAL = Q >= K
WINDOW = CAUSAL & (Q - K < 13)
GLOBAL = K < 3
STRIDED = CAUSAL & ((Q - K) % 7).eq(0)
GAPS = WINDOW & ((Q % 8) >= 3) & (Q < 30)  # rows, and a whole tile, without keys


def pyramid(n, factor=4, levels=2, reduce="mean", weight="count"):
    """A window of tokens and causal summaries behind it, level by level."""
    found = [(TOKENS, Term(CAUSAL & (Q // factor - K // factor <= 1)))]
    for level in range(1, levels + 1):
        size = factor**level
        far = (C + 1) * size - 1 <= Q
        far = far & (Q // size - C > 1)
        if level < levels:
            far = far & (Q // (size * factor) - C // factor <= 1)
        found.append((Pool(size, size, reduce, weight, level), Term(far)))
    return found


def weighted(x, mask):
    """A learned-like pooling: later tokens count for more. It divides by the number of real tokens."""
    w = jnp.where(mask, 1.0 + jnp.arange(mask.shape[-1]), 0.0)[..., None, None]
    return jnp.sum(jnp.where(mask[..., None, None], x, 0.0) * w, axis=2) / jnp.sum(w, axis=-3)


STYLES = {
    "gathered": Style(),
    "runs": Style(contiguous=True),
    "runs of partial blocks": Style(contiguous=True, all_partial=True),
    "padded": Style(padded=True),
    "padded runs": Style(padded=True, contiguous=True),
    "loop": Style(step=2),
    "loop over runs": Style(step=3, contiguous=True),
    "parts": Style(parts=3),
    "parts of loops": Style(parts=2, step=2, slot_block=2),
    "blocks of slots": Style(slot_block=4, contiguous=True),
    "any order": Style(shuffled=("queries", "tokens"), padded=True),
    "queries in any order": Style(shuffled=("queries",), contiguous=True),
    "tokens in any order": Style(shuffled=("tokens",), step=2),
    "gathered tokens": Style(token_block=1, padded=True),
    "tiles of parts": Style(parts=3, cut="queries", block_qs=(4, 8, 16), padded=True),
    "parts in any order": Style(
        parts=2, cut="queries", block_qs=(8, 2), shuffled=("queries", "tokens"), step=3, slot_block=2
    ),
}
PATTERNS = {
    "full": lambda n: [(TOKENS, Term(TRUE))],
    "causal": lambda n: [(TOKENS, Term(CAUSAL))],
    "window": lambda n: [(TOKENS, Term(WINDOW))],
    "window and global": lambda n: [(TOKENS, Term(WINDOW | (GLOBAL & CAUSAL)))],
    "strided": lambda n: [(TOKENS, Term(STRIDED))],
    "gaps": lambda n: [(TOKENS, Term(GAPS))],
    "none": lambda n: [(TOKENS, Term(FALSE))],
    "sum": lambda n: [(TOKENS, Term(CAUSAL, where(Q - K < 13, 2, 1) + where(GLOBAL, 1, 0)))],
    "pyramid": pyramid,
    "summaries with gaps": lambda n: [(Pool(4, 4), Term((C * 4 + 3 <= Q) & (Q % 5 > 1)))],
    "overlapping chunks": lambda n: [(TOKENS, Term(WINDOW)), (Pool(8, 4), Term(C * 4 + 7 <= Q))],
}
