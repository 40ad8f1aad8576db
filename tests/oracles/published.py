"""What published models attend to, from their papers and code.

`published(name)(q_positions, n, **args) -> bool [n_q, n]` (integer counts for `longnet`), one per file of
the shipped library. These are written as the source writes them: windows as bands of row and column
indices, images as reshaped index tables, caches as lists of visited keys.
"""

import itertools

import numpy as np

from . import grids

PUBLISHED = {}


def register(function):
    PUBLISHED[function.__name__] = function
    return function


def published(name):
    """The mask function of the shipped library file `name`."""
    return PUBLISHED[name]


def indices(q_positions, n):
    """Query positions as a column and key positions as a row, to compare by broadcasting."""
    return np.asarray(q_positions).reshape(-1, 1), np.arange(n).reshape(1, -1)


@register
def longformer(q_positions, n, window=512, tokens=1):
    """Band of window // 2 on either side; then the global columns and rows are switched on."""
    i, j = indices(q_positions, n)
    mask = np.abs(i - j) <= window // 2
    mask[:, :tokens] = True
    mask[(i[:, 0] >= 0) & (i[:, 0] < tokens)] = True
    return mask


@register
def dilated_longformer(q_positions, n, side=256, dilation=2, tokens=1):
    """`side` steps of `dilation` tokens on either side."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        for step in range(-side, side + 1):
            if 0 <= q + step * dilation < n:
                mask[row, q + step * dilation] = True
        mask[row, :tokens] = True
        if 0 <= q < tokens:
            mask[row] = True
    return mask


@register
def bigbird(q_positions, n, block=64, random_table=()):
    """Block rows and columns 0 and last, the window of three blocks, and the random blocks that are given.

    `random_table[row]` lists the random key blocks of a row of blocks; the draw is given, not made here.
    """
    last = (n - 1) // block
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        own = q // block
        seen = {0, last, own - 1, own, own + 1}
        if own < len(random_table):
            seen |= set(random_table[own])
        if own in (0, last):
            seen = set(range(last + 1))
        for key_block in seen:
            if key_block >= 0:
                mask[row, key_block * block : (key_block + 1) * block] = True
    return mask


@register
def sparse_transformer_strided(q_positions, n, stride=128):
    """The union of the code's A1 (a lower band of `stride` keys) and the paper's A2."""
    i, j = indices(q_positions, n)
    return (j <= i) & ((i - j <= stride - 1) | ((i - j) % stride == 0))


@register
def sparse_transformer_fixed(q_positions, n, block=128, summary=8):
    """The union of A1, the query's block up to it, and A2, the last `summary` keys of each block."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        if q < 0:
            continue
        mask[row, q // block * block : q + 1] = True
        for key in range(q + 1):
            mask[row, key] |= key % block >= block - summary
    return mask


@register
def streaming_llm(q_positions, n, sink_tokens=4, window=512):
    """The cache holds the first keys and the most recent ones."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        arrived = list(range(q + 1))
        for key in arrived[:sink_tokens] + arrived[max(len(arrived) - window, 0) :]:
            mask[row, key] = True
    return mask


@register
def mistral(q_positions, n, window=4096):
    i, j = indices(q_positions, n)
    return (i - window < j) & (j <= i)


@register
def gemma3(q_positions, n, window=1024, layer=0):
    """The layer is full if (layer + 1) % 6 == 0 and slides otherwise."""
    i, j = indices(q_positions, n)
    return (j <= i) & ((j > i - window) | ((layer + 1) % 6 == 0))


@register
def logsparse(q_positions, n):
    """j = i, and j = i - 2^p while that is not negative."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        if q < 0:
            continue
        mask[row, q] = True
        p = 0
        while q - 2**p >= 0:
            mask[row, q - 2**p] = True
            p += 1
    return mask


@register
def longnet(q_positions, n, sizes=(2048, 4096), dilations=(1, 2), residues=None):
    """How many branches keep each pair; branch b starts at residues[b] (default 0) in its segments."""
    counts = np.zeros((len(q_positions), n), dtype=np.int64)
    for branch, (size, dilation) in enumerate(zip(sizes, dilations, strict=True)):
        residue = residues[branch] if residues else 0
        for start in range(0, n, size):
            members = range(start + residue, start + size, dilation)
            for row, q in enumerate(q_positions):
                if q in members:
                    for key in members:
                        if key <= q:
                            counts[row, key] += 1
    return counts


def longnet_residue(head, num_heads, dilation):
    """torchscale: contiguous groups of ceil(num_heads / dilation) heads share a residue."""
    return head // int(np.ceil(num_heads / dilation))


@register
def prefix_lm(q_positions, n, prefix=128):
    i, j = indices(q_positions, n)
    return (j < prefix) | (j <= i)


@register
def document_causal(q_positions, n, doc):
    """`doc` has one value per key; queries are the last tokens."""
    i, j = indices(q_positions, n)
    doc = np.asarray(doc)
    return (j <= i) & (doc[i] == doc[j])


@register
def natten2d(q_positions, n, height, width, window, dilation=1, stride=1):
    return grids.MASKS["neighborhood"](
        q_positions, n, shape=(height, width), window=window, dilation=dilation, stride=stride
    )


@register
def axial(q_positions, n, height, width):
    """Reshaped to height x width, a pixel sees its row and its column."""
    if height * width != n:
        raise ValueError(f"a {height} x {width} image has no {n} pixels")
    number = np.arange(n).reshape(height, width)
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        y, x = np.argwhere(number == q)[0]
        mask[row, number[y, :]] = True
        mask[row, number[:, x]] = True
    return mask


@register
def transformer_xl(q_positions, n, segment=512, memory=512):
    """Segment by segment: keys [memory | segment] with tril(diagonal = memory)."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        start = q // segment * segment
        for key in range(max(start - memory, 0), q + 1):
            mask[row, key] = True
    return mask


@register
def llama4_chunked(q_positions, n, size=8192):
    """Block-diagonal lower triangles."""
    i, j = indices(q_positions, n)
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for start in range(0, n, size):
        inside = (i >= start) & (i < start + size) & (j >= start) & (j < start + size)
        mask |= inside & (j <= i)
    return mask


@register
def llama4_layers(q_positions, n, size=8192, layer=0):
    i, j = indices(q_positions, n)
    return (j <= i) if (layer + 1) % 4 == 0 else llama4_chunked(q_positions, n, size)


@register
def gpt_oss(q_positions, n, window=128, layer=0):
    i, j = indices(q_positions, n)
    return (j <= i) if layer % 2 == 1 else (j <= i) & (j > i - window)


@register
def block_diffusion(q_positions, n, block=4):
    """Over [x_t | x_0]: own noisy block and strictly earlier clean blocks; clean blocks up to own."""
    half = n // 2
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        if 0 <= q < half:
            own = range(q // block * block, min((q // block + 1) * block, half))
            earlier = range(half, half + q // block * block)
        elif q >= half:
            own = range(0)
            earlier = range(half, min(half + ((q - half) // block + 1) * block, n))
        else:
            continue
        for key in itertools.chain(own, earlier):
            mask[row, key] = True
    return mask


@register
def etc(q_positions, n, globals=64, radius=84):
    """The four pieces: global to global, global to long, long to global, long to long."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        for key in range(n):
            if 0 <= q < globals or key < globals:
                mask[row, key] = True
            else:
                mask[row, key] = abs(q - key) <= radius
    return mask


@register
def star(q_positions, n, ring=False):
    """Token 0 is the relay; the satellites 1 … n − 1 have neighbours, in a ring or in a row."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    satellites = list(range(1, n))
    for row, q in enumerate(q_positions):
        mask[row, 0] = True
        if q == 0:
            mask[row] = True
        for step in (-1, 0, 1):
            if q + step in satellites:
                mask[row, q + step] = True
        if ring and len(satellites) > 1 and q in (satellites[0], satellites[-1]):
            mask[row, [satellites[0], satellites[-1]]] = True
    return mask


@register
def radial(q_positions, n, frame=1560, block=128, wan=False):
    """Frame by frame as the released code goes, before it rounds to blocks; decay 1."""
    mask = np.zeros((len(q_positions), n), dtype=bool)
    for row, q in enumerate(q_positions):
        for key in range(n):
            i, j = int(q // frame), key // frame
            distance = abs(i - j)
            decayed = 2 ** frame.bit_length() / 2 ** distance.bit_length()
            if distance == 0 or (distance == 1 and not wan):
                width = frame
            elif distance == 1:
                width = frame // 2
            else:
                width = max(decayed, block)
            split = 1 if decayed >= block else int(block / decayed)
            near = abs(int(q) % frame - key % frame) <= width
            mask[row, key] = j == 0 or (near and distance % split == 0)
    return mask


def h_transformer_level(q, k, block):
    """H-Transformer-1D: the smallest level whose blocks of block * 2**level tokens are equal or adjacent."""
    level = 0
    while abs(q // (block * 2**level) - k // (block * 2**level)) > 1:
        level += 1
    return level
