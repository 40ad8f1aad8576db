"""One-dimensional built-in patterns: one predicate per pattern, and the transforms.

A token list is a list of integers and slices; negative ones count from the end, as in Python.
"""

import numpy as np

MASKS = {}


def dense(keep, q_positions, n):
    """Evaluates a predicate on Python integers over all pairs."""
    return np.array([[bool(keep(int(q), k)) for k in range(n)] for q in q_positions], dtype=bool).reshape(
        len(q_positions), n
    )


def pairwise(function):
    """Registers `keep(q, k, n, **args)` under its own name as a dense mask."""

    def mask(q_positions, n, **args):
        return dense(lambda q, k: function(q, k, n, **args), q_positions, n)

    MASKS[function.__name__.rstrip("_")] = mask
    return function


def whole_mask(function):
    """Registers a function that builds the whole mask."""
    MASKS[function.__name__.rstrip("_")] = function
    return function


def token_set(tokens, n):
    """The positions that a token list names among n tokens."""
    named = set()
    for item in tokens:
        if isinstance(item, slice):
            named.update(range(n)[item])
            continue
        if not -n <= item < n:
            raise ValueError(f"token {item} is not among {n} tokens")
        named.add(item % n)
    return named


@pairwise
def full(q, k, n):
    return True


@pairwise
def none(q, k, n):
    return False


@pairwise
def self_(q, k, n):
    return q == k


@pairwise
def causal(q, k, n):
    return k <= q


@pairwise
def local(q, k, n, w=None, left=None, right=None):
    if w is not None:
        return abs(q - k) < w
    return q - left <= k <= q + right


@pairwise
def dilated(q, k, n, window, dilation):
    return any(k == q + step * dilation for step in range(-(window - 1), window))


@whole_mask
def global_(q_positions, n, tokens):
    named = token_set(tokens, n)
    return dense(lambda q, k: q in named or k in named, q_positions, n)


@whole_mask
def columns(q_positions, n, tokens):
    named = token_set(tokens, n)
    return dense(lambda q, k: k in named, q_positions, n)


@whole_mask
def rows(q_positions, n, tokens):
    named = token_set(tokens, n)
    return dense(lambda q, k: q in named, q_positions, n)


@pairwise
def sinks(q, k, n, m):
    return k < m


@pairwise
def strided(q, k, n, stride):
    return (q - k) % stride == 0


@pairwise
def fixed(q, k, n, block, summary):
    return q // block == k // block or k % block in range(block - summary, block)


@pairwise
def chunked(q, k, n, size, back=0, ahead=0):
    return k // size in range(q // size - back, q // size + ahead + 1)


@pairwise
def segment_memory(q, k, n, segment, memory):
    first = next(start for start in range(-segment * 100, q + 1, segment) if start <= q < start + segment)
    return k in range(first, first + segment) or k in range(first - memory, first)


@whole_mask
def same(q_positions, n, doc):
    """`doc` holds one value per key; queries are among the tokens, so q_positions must be >= 0."""
    return dense(lambda q, k: doc[q] == doc[k], q_positions, n)


@pairwise
def logsparse(q, k, n, base=2):
    distance = abs(q - k)
    step = 1
    while step < distance:
        step *= base
    return distance == 0 or distance == step


@pairwise
def butterfly(q, k, n, block=1):
    if q < 0:  # a negative number has no finite row of binary digits: it differs from k in infinitely many
        return False
    a, b = q // block, k // block
    return sum((a >> bit) % 2 != (b >> bit) % 2 for bit in range(64)) <= 1


@pairwise
def segments(q, k, n, size, dilation, offset=0):
    start = q // size * size
    members = [t for t in range(start, start + size) if (t - start) % dilation == offset % dilation]
    return q in members and k in members


@whole_mask
def transpose(q_positions, n, inner):
    """`inner(q_positions, n)` is a mask function; it keeps (k, q) where this keeps (q, k)."""
    square = inner(np.arange(n), n)
    return dense(lambda q, k: q >= 0 and square[k, q], q_positions, n)


@whole_mask
def shift(q_positions, n, inner, by, **args):
    """(q, k) is kept where `inner` keeps the key that lies `by` before k, if there is one."""
    mask = inner(q_positions, n, **args)
    out = np.zeros_like(mask)
    for k in range(n):
        if 0 <= k - by < n:
            out[:, k] = mask[:, k - by]
    return out


@whole_mask
def blocks(q_positions, n, inner, size):
    """A block is kept where `inner` keeps any of its pairs with 0 <= q, k < n."""
    square = inner(np.arange(n), n)
    count = -(-n // size)
    coarse = np.zeros((count, count), dtype=bool)
    for row in range(count):
        for column in range(count):
            block = square[row * size : (row + 1) * size, column * size : (column + 1) * size]
            coarse[row, column] = block.any()
    return dense(lambda q, k: q >= 0 and coarse[q // size, k // size], q_positions, n)
