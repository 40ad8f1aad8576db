"""The oracles themselves, against counts that the sources state."""

import math

import numpy as np
import pytest

from tests.oracles import levels_and_slots, oracle, positions, published, slots
from tests.oracles.published import PUBLISHED, h_transformer_level


def row_counts(mask):
    return mask.sum(axis=1)


def test_window_under_causal_has_exactly_w_keys():
    mask = oracle("local")(positions(20), 20, w=5) & oracle("causal")(positions(20), 20)
    np.testing.assert_array_equal(row_counts(mask), np.minimum(np.arange(20) + 1, 5))


def test_two_sided_bounds_are_inclusive():
    mask = oracle("local")(positions(20), 20, left=3, right=2)
    assert row_counts(mask)[10] == 3 + 1 + 2


def test_longformer_counts():
    counts = row_counts(published("longformer")(positions(100), 100, window=10, tokens=2))
    assert counts[50] == 10 + 1 + 2 and list(counts[:2]) == [100, 100]
    assert counts[3] == 3 + 1 + 5  # both globals are inside the window: once each


def test_dilated_window_counts():
    assert row_counts(oracle("dilated")(positions(60), 60, window=4, dilation=3))[30] == 2 * 3 + 1
    with_global = published("dilated_longformer")(positions(60), 60, side=3, dilation=3)
    assert row_counts(with_global)[30] == 2 * 3 + 1 + 1


def test_sparse_transformer_counts():
    n, block, summary = 50, 8, 3
    rows = np.arange(n)
    strided = oracle("strided")(positions(n), n, stride=block) & oracle("causal")(positions(n), n)
    np.testing.assert_array_equal(row_counts(strided), rows // block + 1)
    fixed = published("sparse_transformer_fixed")(positions(n), n, block=block, summary=summary)
    own = rows % block + 1
    columns = summary * ((rows + 1) // block) + np.maximum(0, (rows + 1) % block - (block - summary))
    overlap = np.where(rows % block >= block - summary, rows % block - (block - summary) + 1, 0)
    np.testing.assert_array_equal(row_counts(fixed), own + columns - overlap)


def test_streaming_llm_counts():
    counts = row_counts(published("streaming_llm")(positions(40), 40, sink_tokens=2, window=5))
    np.testing.assert_array_equal(counts, np.minimum(np.arange(40) + 1, 2 + 5))


def test_logsparse_counts_and_reach():
    n = 64
    mask = published("logsparse")(positions(n), n)
    expected = [1] + [int(math.log2(i)) + 2 for i in range(1, n)]
    np.testing.assert_array_equal(row_counts(mask), expected)
    reach = np.linalg.matrix_power(mask.astype(float), int(math.log2(n)) + 1) > 0
    np.testing.assert_array_equal(reach, oracle("causal")(positions(n), n))


def test_longnet_weights():
    counts = published("longnet")(positions(32), 32, sizes=(8, 16), dilations=(1, 2))
    assert counts[14].max() == 2 and counts[14, 8] == 2 and counts[14, 9] == 1 and counts[14, 2] == 1
    assert counts.sum(axis=1).max() <= 8 + 16 // 2


def test_chunk_counts():
    n, size = 40, 6
    causal = oracle("causal")(positions(n), n)
    rows = np.arange(n)
    own = oracle("chunked")(positions(n), n, size=size) & causal
    np.testing.assert_array_equal(row_counts(own), rows % size + 1)
    np.testing.assert_array_equal(own, published("llama4_chunked")(positions(n), n, size=size))
    with_previous = oracle("chunked")(positions(n), n, size=size, back=1) & causal
    np.testing.assert_array_equal(row_counts(with_previous)[size:], rows[size:] % size + 1 + size)


def test_transformer_xl_is_chunks_with_a_whole_memory():
    n = 50
    ours = oracle("chunked")(positions(n), n, size=7, back=1) & oracle("causal")(positions(n), n)
    np.testing.assert_array_equal(published("transformer_xl")(positions(n), n, segment=7, memory=7), ours)


def test_bigbird_counts_in_blocks():
    nb, block = 12, 4
    table = [[]] * 2 + [[(row + 4) % 6 + 3] for row in range(2, nb - 2)] + [[]] * 2
    mask = published("bigbird")(positions(nb * block), nb * block, block=block, random_table=table)
    counts = row_counts(mask)[::block] // block
    assert counts[0] == counts[-1] == nb and counts[1] == counts[-2] == 4
    for row in range(2, nb - 2):
        assert counts[row] == 5 + (table[row][0] not in (row - 1, row, row + 1))


def test_butterfly_keeps_one_pair_of_blocks_per_digit():
    counts = row_counts(oracle("butterfly")(positions(64), 64, block=2))
    assert set(counts.tolist()) == {2 * (1 + 5)}


def test_block_diffusion_counts():
    length, block = 12, 4
    counts = row_counts(published("block_diffusion")(positions(2 * length), 2 * length, block=block))
    rows = np.arange(length)
    np.testing.assert_array_equal(counts[:length], block + rows // block * block)
    np.testing.assert_array_equal(counts[length:], (rows // block + 1) * block)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axial_counts(axis):
    shape = (3, 4, 5)
    assert set(row_counts(oracle("axial")(positions(60), 60, shape=shape, axis=axis))) == {shape[axis]}


def test_axial_union_counts():
    assert set(row_counts(published("axial")(positions(30), 30, height=5, width=6))) == {5 + 6 - 1}


@pytest.mark.parametrize("window", [(3, 3), (4, 2), (5, 4)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_neighborhood_keeps_its_size(window, stride, dilation):
    counts = row_counts(
        oracle("neighborhood")(
            positions(110), 110, shape=(11, 10), window=window, stride=stride, dilation=dilation
        )
    )
    assert set(counts) == {window[0] * window[1]}


def test_neighborhood_of_even_size_leans_left():
    seen = np.flatnonzero(oracle("neighborhood")(positions(10), 10, shape=(10,), window=4)[5])
    np.testing.assert_array_equal(seen, [3, 4, 5, 6])


def test_causal_neighborhood_is_a_window():
    mask = oracle("neighborhood")(positions(10), 10, shape=(10,), window=4, causal=True)
    expected = oracle("local")(positions(10), 10, w=4) & oracle("causal")(positions(10), 10)
    np.testing.assert_array_equal(mask, expected)


def test_tiles_keep_their_size():
    counts = row_counts(oracle("tiles")(positions(96), 96, shape=(8, 12), tile=(2, 3), window=(3, 2)))
    assert set(counts) == {3 * 2 * 2 * 3}


def test_windows_counts():
    plain = row_counts(oracle("windows")(positions(64), 64, shape=(8, 8), size=4))
    assert set(plain) == {16}
    shifted = row_counts(oracle("windows")(positions(64), 64, shape=(8, 8), size=4, shift=2))
    assert set(shifted) == {16, 8, 4}  # interior, cut on one axis, cut on both


@pytest.mark.parametrize("n", [1, 2, 7, 16, 33, 64])
@pytest.mark.parametrize("factor, window, leaf", [(2, 1, 2), (4, 1, 4), (2, 2, 5), (3, 0, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_hierarchy_represents_each_token_once(n, factor, window, leaf, causal):
    kept, table = slots(positions(n), n, factor, window=window, leaf=leaf, causal=causal)
    seen = np.zeros((n, n), dtype=int)
    for column, (_, start, stop) in enumerate(table):
        seen[:, start:stop] += kept[:, column : column + 1]
    expected = np.ones((n, n), dtype=int)
    np.testing.assert_array_equal(seen, np.tril(expected) if causal else expected)


@pytest.mark.parametrize("block", [2, 4, 6])
def test_hierarchy_has_the_levels_of_h_transformer(block):
    n = block * 8
    kept, table = slots(positions(n), n, factor=2, window=1, leaf=block)
    for column, (level, start, stop) in enumerate(table):
        for q in np.flatnonzero(kept[:, column]):
            for token in range(start, stop):
                assert h_transformer_level(q, token, block) == level


def test_levels_stop_at_the_smallest_that_covers_n():
    assert [levels_and_slots(n, factor=4)[0] for n in (1, 16, 17, 64, 65)] == [1, 1, 2, 2, 3]


ANY_N = sorted(set(PUBLISHED) - {"natten2d", "axial", "document_causal", "bigbird"})


@pytest.mark.parametrize("name", ANY_N)
@pytest.mark.parametrize("n, n_q", [(1, 1), (1, 3), (7, 4), (7, 9)])
def test_oracles_take_any_length(name, n, n_q):
    mask = published(name)(positions(n, n_q), n)
    assert mask.shape == (n_q, n)
    shared = min(n, n_q)
    np.testing.assert_array_equal(mask[n_q - shared :], published(name)(positions(n), n)[n - shared :])


@pytest.mark.parametrize("name", ["axial", "neighborhood", "tiles", "windows"])
def test_grids_refuse_another_length(name):
    args = {
        "axial": {"axis": 0},
        "neighborhood": {"window": 1},
        "tiles": {"tile": 1, "window": 1},
        "windows": {"size": 1},
    }
    with pytest.raises(ValueError, match="no 7 tokens"):
        oracle(name)(positions(7), 7, shape=(2, 3), **args[name])
    with pytest.raises(ValueError, match="not on the grid"):
        oracle(name)(positions(6, 8), 6, shape=(2, 3), **args[name])
