"""Every built-in pattern against its independent oracle, at ragged lengths and with n_q != n."""

import re

import numpy as np
import pytest

import patterndsl as pd
from tests.conformance.compare import by_slot, found_by_slot
from tests.oracles import oracle, positions, slots
from tests.oracles.summaries import chunks, full_blocks, seen

LENGTHS = (1, 2, 7, 64, 65, 130)
FEWER_AND_MORE = ((7, 3), (65, 20), (64, 1), (7, 12), (2, 70))

TOKEN_PATTERNS = [
    ("full", "full", {}),
    ("none", "none", {}),
    ("self", "self", {}),
    ("causal", "causal", {}),
    ("local(1)", "local", {"w": 1}),
    ("local(5)", "local", {"w": 5}),
    ("local(w=1000)", "local", {"w": 1000}),
    ("local(left=3, right=0)", "local", {"left": 3, "right": 0}),
    ("local(left=2, right=7)", "local", {"left": 2, "right": 7}),
    ("dilated(1, 4)", "dilated", {"window": 1, "dilation": 4}),
    ("dilated(window=3, dilation=4)", "dilated", {"window": 3, "dilation": 4}),
    ("global(tokens=[0])", "global", {"tokens": [0]}),
    ("global([-1])", "global", {"tokens": [-1]}),
    ("global([0, 5:9, -2:])", "global", {"tokens": [0, slice(5, 9), slice(-2, None)]}),
    ("columns([0, ::16])", "columns", {"tokens": [0, slice(None, None, 16)]}),
    ("columns([3:-3])", "columns", {"tokens": [slice(3, -3)]}),
    ("columns([-5::2])", "columns", {"tokens": [slice(-5, None, 2)]}),
    ("rows([:4, -1])", "rows", {"tokens": [slice(None, 4), -1]}),
    ("rows([0])", "rows", {"tokens": [0]}),
    ("sinks(1)", "sinks", {"m": 1}),
    ("sinks(m=12)", "sinks", {"m": 12}),
    ("strided(1)", "strided", {"stride": 1}),
    ("strided(8)", "strided", {"stride": 8}),
    ("strided(7)", "strided", {"stride": 7}),
    ("fixed(block=8, summary=3)", "fixed", {"block": 8, "summary": 3}),
    ("fixed(5, 5)", "fixed", {"block": 5, "summary": 5}),
    ("chunked(8)", "chunked", {"size": 8}),
    ("chunked(5, back=2)", "chunked", {"size": 5, "back": 2}),
    ("chunked(size=6, back=1, ahead=1)", "chunked", {"size": 6, "back": 1, "ahead": 1}),
    ("segment_memory(8, 0)", "segment_memory", {"segment": 8, "memory": 0}),
    ("segment_memory(segment=5, memory=13)", "segment_memory", {"segment": 5, "memory": 13}),
    ("logsparse", "logsparse", {}),
    ("logsparse(base=3)", "logsparse", {"base": 3}),
    ("butterfly", "butterfly", {}),
    ("butterfly(block=4)", "butterfly", {"block": 4}),
    ("butterfly(block=3)", "butterfly", {"block": 3}),
    ("segments(16, 4)", "segments", {"size": 16, "dilation": 4}),
    ("segments(size=10, dilation=3, offset=2)", "segments", {"size": 10, "dilation": 3, "offset": 2}),
    ("segments(12, 1)", "segments", {"size": 12, "dilation": 1}),
]


def expected_or_error(name, args, q_positions, n):
    try:
        return oracle(name)(q_positions, n, **args)
    except ValueError:
        return None


@pytest.mark.parametrize("text, name, args", TOKEN_PATTERNS, ids=[row[0] for row in TOKEN_PATTERNS])
def test_token_patterns(text, name, args):
    spec = pd.parse(text)
    for n, n_q in [(n, n) for n in LENGTHS] + list(FEWER_AND_MORE):
        expected = expected_or_error(name, args, positions(n, n_q), n)
        if expected is None:
            with pytest.raises(pd.SpecError):
                spec.mask(n, n_q)
            continue
        np.testing.assert_array_equal(spec.mask(n, n_q), expected, err_msg=f"n={n}, n_q={n_q}")


def test_every_static_pattern_is_tested():
    from patterndsl.patterns import builtins

    tested = {row[1] for row in TOKEN_PATTERNS} | {row[1] for row in GRIDS}
    elsewhere = {"same", "random", "hierarchical", "tree", "recursive", "transpose", "shift", "blocks"}
    elsewhere |= {"pool", "tglobal"}
    elsewhere |= {"select", "lsh", "vertical_slash", "cluster"}  # test_chosen
    assert set(builtins()) - tested - elsewhere == set()


def test_same():
    documents = np.array([3, 3, 1, 1, 1, 3, 0, 2, 2])
    spec = pd.parse("input doc: token\npattern main = same(doc)")
    for n in (1, 2, 7, 9):
        for n_q in (1, n):
            expected = oracle("same")(positions(n, n_q), n, doc=documents[:n])
            np.testing.assert_array_equal(spec.mask(n, n_q, inputs={"doc": documents[:n]}), expected)


GRIDS = [
    ("axial(shape=[5, 13], axis=0)", "axial", {"shape": (5, 13), "axis": 0}),
    ("axial(shape=[5, 13], axis=1)", "axial", {"shape": (5, 13), "axis": 1}),
    ("axial(shape=[4, 3, 5], axis=1)", "axial", {"shape": (4, 3, 5), "axis": 1}),
    ("axial(shape=[1, 1], axis=0)", "axial", {"shape": (1, 1), "axis": 0}),
    ("neighborhood(shape=[7], window=3)", "neighborhood", {"shape": (7,), "window": 3}),
    ("neighborhood(shape=[8, 8], window=4)", "neighborhood", {"shape": (8, 8), "window": 4}),
    ("neighborhood(shape=[5, 13], window=[3, 6])", "neighborhood", {"shape": (5, 13), "window": (3, 6)}),
    (
        "neighborhood(shape=[10, 13], window=[3, 2], dilation=[3, 4])",
        "neighborhood",
        {"shape": (10, 13), "window": (3, 2), "dilation": (3, 4)},
    ),
    (
        "neighborhood(shape=[9, 11], window=[4, 5], stride=[3, 4])",
        "neighborhood",
        {"shape": (9, 11), "window": (4, 5), "stride": (3, 4)},
    ),
    (
        "neighborhood(shape=[9, 11], window=4, dilation=2, stride=3)",
        "neighborhood",
        {"shape": (9, 11), "window": 4, "dilation": 2, "stride": 3},
    ),
    (
        "neighborhood(shape=[9, 11], window=4, stride=2, causal=true)",
        "neighborhood",
        {"shape": (9, 11), "window": 4, "stride": 2, "causal": True},
    ),
    (
        "neighborhood(shape=[65], window=5, dilation=6, causal=true)",
        "neighborhood",
        {"shape": (65,), "window": 5, "dilation": 6, "causal": True},
    ),
    (
        "neighborhood(shape=[3, 5, 6], window=[2, 3, 4], causal=[1, 0, 0])",
        "neighborhood",
        {"shape": (3, 5, 6), "window": (2, 3, 4), "causal": (True, False, False)},
    ),
    ("tiles(shape=[64], tile=8, window=3)", "tiles", {"shape": (64,), "tile": 8, "window": 3}),
    ("tiles(shape=[8, 8], tile=2, window=2)", "tiles", {"shape": (8, 8), "tile": 2, "window": 2}),
    (
        "tiles(shape=[6, 12], tile=[2, 3], window=[3, 4])",
        "tiles",
        {"shape": (6, 12), "tile": (2, 3), "window": (3, 4)},
    ),
    (
        "tiles(shape=[4, 4, 6], tile=[2, 2, 2], window=[1, 2, 3])",
        "tiles",
        {"shape": (4, 4, 6), "tile": (2, 2, 2), "window": (1, 2, 3)},
    ),
    ("windows(shape=[8, 8], size=4)", "windows", {"shape": (8, 8), "size": 4}),
    ("windows(shape=[8, 8], size=4, shift=2)", "windows", {"shape": (8, 8), "size": 4, "shift": 2}),
    ("windows(shape=[14, 7], size=7, shift=3)", "windows", {"shape": (14, 7), "size": 7, "shift": 3}),
    (
        "windows(shape=[6, 12], size=[3, 4], shift=[1, 2])",
        "windows",
        {"shape": (6, 12), "size": (3, 4), "shift": (1, 2)},
    ),
    ("windows(shape=[64], size=8, shift=4)", "windows", {"shape": (64,), "size": 8, "shift": 4}),
]


@pytest.mark.parametrize("text, name, args", GRIDS, ids=[row[0] for row in GRIDS])
def test_grids(text, name, args):
    spec, n = pd.parse(text), int(np.prod(args["shape"]))
    for n_q in (n, max(1, n // 3), 1):
        np.testing.assert_array_equal(
            spec.mask(n, n_q), oracle(name)(positions(n, n_q), n, **args), err_msg=f"n_q={n_q}"
        )
    with pytest.raises(pd.SpecError):
        spec.mask(n + 1)


@pytest.mark.parametrize("blocks, block, seed", [(1, 1, 0), (2, 8, 0), (3, 8, 5), (20, 16, 1), (2, 64, 0)])
def test_random_draws_distinct_blocks(blocks, block, seed):
    spec = pd.parse(f"random({blocks}, block={block}, seed={seed})")
    for n in LENGTHS:
        mask, count = spec.mask(n), -(-n // block)
        coarse = mask[::block, ::block]
        np.testing.assert_array_equal(mask, np.kron(coarse, np.ones((block, block), bool))[:n, :n])
        assert (coarse.sum(axis=1) == min(blocks, count)).all()
        np.testing.assert_array_equal(mask, pd.parse(f"random({blocks}, block={block}, seed={seed})").mask(n))
        for n_q in {1, max(1, n // 2)}:
            np.testing.assert_array_equal(spec.mask(n, n_q), mask[n - n_q :])


def test_random_depends_on_row_and_seed():
    masks = [pd.parse(f"random(4, block=1, seed={seed})").mask(130) for seed in (0, 1)]
    assert (masks[0] != masks[1]).any()
    assert len({row.tobytes() for row in masks[0]}) > 100
    columns = masks[0].sum(axis=0)  # uniform: 4 expected, none starved or flooded
    assert columns.max() < 16 and (columns == 0).sum() < 15


HIERARCHIES = [
    ("hierarchical(factor=4)", {"factor": 4}),
    ("hierarchical(2)", {"factor": 2}),
    ("hierarchical(factor=2, window=2)", {"factor": 2, "window": 2}),
    ("hierarchical(factor=3, window=0)", {"factor": 3, "window": 0}),
    ("hierarchical(factor=2, leaf=8)", {"factor": 2, "leaf": 8}),
    ("hierarchical(factor=4, window=1, leaf=3, levels=2)", {"factor": 4, "leaf": 3, "levels": 2}),
    ("hierarchical(factor=2, levels=1)", {"factor": 2, "levels": 1}),
    ("tree(2)", {"factor": 2, "window": 0}),
    ("tree(branching=5)", {"factor": 5, "window": 0}),
    ("recursive(5)", {"factor": 2, "window": 0, "leaf": 5}),
    ("recursive(base=1, branch=3)", {"factor": 3, "window": 0, "leaf": 1}),
    ('recursive(2, weight="one", of="summaries")', {"factor": 2, "window": 0, "leaf": 2}),
]


@pytest.mark.parametrize("text, args", HIERARCHIES, ids=[row[0] for row in HIERARCHIES])
@pytest.mark.parametrize("causal", [False, True])
def test_hierarchies(text, args, causal):
    spec = pd.parse(f"causal & {text}" if causal else text)
    for n, n_q in [(n, n) for n in LENGTHS] + list(FEWER_AND_MORE):
        expected = by_slot(*slots(positions(n, n_q), n, causal=causal, **args))
        assert found_by_slot(spec.slots(n, n_q)) == expected, f"n={n}, n_q={n_q}"


POOLS = [
    ("pool(4)", chunks, {"size": 4}),
    ("pool(5, 2)", chunks, {"size": 5, "stride": 2}),
    ("pool(size=3, stride=7)", chunks, {"size": 3, "stride": 7}),
    ("pool(64, 16, whole=true)", chunks, {"size": 64, "stride": 16, "whole": True}),
    ("tglobal(4)", full_blocks, {"block": 4}),
    ("tglobal(block=63)", full_blocks, {"block": 63}),
]


@pytest.mark.parametrize("text, table, args", POOLS, ids=[row[0] for row in POOLS])
def test_chunks_of_one_length(text, table, args):
    for n, n_q in [(n, n) for n in LENGTHS] + list(FEWER_AND_MORE):
        every = seen(positions(n, n_q), n, table(n, **args), lambda q, level, start, stop: level)
        two_kinds = text.startswith("tglobal")
        assert found_by_slot(pd.parse(text).slots(n, n_q), two_kinds) == by_slot(*every)
        past = seen(positions(n, n_q), n, table(n, **args), lambda q, level, _, stop: level and stop - 1 <= q)
        assert found_by_slot(pd.parse(f"causal & {text}").slots(n, n_q), two_kinds) == by_slot(*past)


def test_union_of_tokens_and_summaries():
    n = 65
    kept, table = slots(positions(n), n, factor=4, causal=True)
    near = oracle("local")(positions(n), n, w=9) & oracle("causal")(positions(n), n)
    kept[:, :n] |= near
    spec = pd.parse("causal & (local(9) | hierarchical(factor=4))")
    assert found_by_slot(spec.slots(n)) == by_slot(kept, table)


def test_token_pattern_keeps_a_summary_only_as_a_whole():
    n = 33
    kept, table = slots(positions(n), n, factor=2)
    cut = oracle("local")(positions(n), n, left=20, right=5)
    for column, (_, start, stop) in enumerate(table):
        kept[:, column] &= cut[:, start:stop].all(axis=1)
    spec = pd.parse("local(left=20, right=5) & hierarchical(factor=2)")
    assert found_by_slot(spec.slots(n)) == by_slot(kept, table)


def test_sum_counts_pairs():
    n = 40
    parts = [oracle("local")(positions(n), n, w=6), oracle("strided")(positions(n), n, stride=3)]
    spec = pd.parse("local(6) + strided(3)")
    np.testing.assert_array_equal(spec.slots(n).counts, parts[0].astype(int) + parts[1])
    np.testing.assert_array_equal(spec.mask(n), parts[0] | parts[1])


def test_sum_counts_under_an_intersection():
    n = 20
    causal = oracle("causal")(positions(n), n)
    spec = pd.parse("causal & (self + full + sinks(2))")
    expected = np.eye(n, dtype=int) + 1 + oracle("sinks")(positions(n), n, m=2)
    np.testing.assert_array_equal(spec.slots(n).counts, expected * causal)


@pytest.mark.parametrize("inner", ["local(left=5, right=1)", "causal", "columns([0, 3])", "fixed(8, 2)"])
def test_transpose(inner):
    for n, n_q in ((4, 4), (7, 7), (65, 65), (65, 20), (7, 12)):
        expected = oracle("transpose")(positions(n, n_q), n, inner=lambda q, n: pd.parse(inner).mask(n)[q])
        np.testing.assert_array_equal(pd.parse(f"transpose({inner})").mask(n, n_q), expected)


@pytest.mark.parametrize("by", [0, 3, -2, 100])
def test_shift(by):
    for n, n_q in ((1, 1), (7, 12), (65, 65), (65, 20)):
        expected = oracle("shift")(positions(n, n_q), n, inner=oracle("local"), by=by, left=4, right=1)
        np.testing.assert_array_equal(pd.parse(f"shift(local(left=4, right=1), {by})").mask(n, n_q), expected)


@pytest.mark.parametrize("inner", ["local(3)", "causal & logsparse", "self", "columns([9])"])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_blocks(inner, size):
    for n, n_q in ((16, 16), (65, 65), (65, 20), (16, 30)):
        expected = oracle("blocks")(
            positions(n, n_q), n, inner=lambda q, n: pd.parse(inner).mask(n)[q], size=size
        )
        np.testing.assert_array_equal(pd.parse(f"blocks({inner}, {size})").mask(n, n_q), expected)


PYTHON = [
    text.replace("global(", "global_(").replace("true", "True")
    for text in [row[0] for row in TOKEN_PATTERNS + GRIDS] + [row[0] for row in HIERARCHIES]
    if ":" not in text
]


@pytest.mark.parametrize("text", PYTHON)
def test_constructors_build_the_same_pattern(text):
    """Every text above without a slice is also a Python expression over the package's names."""
    names = {name: getattr(pd, name) for name in re.findall(r"^[a-z_]+", text)}
    built = eval(text, names)
    spec = built() if callable(built) else built
    assert spec == pd.parse(text.replace("global_(", "global(").replace("True", "true"))


@pytest.mark.parametrize("name", sorted({row[1] for row in TOKEN_PATTERNS + GRIDS if row[2]}))
def test_one_step_in_any_number_would_be_noticed(name):
    """The comparisons above can fail: each numeric argument, moved by one, changes some compared mask."""
    noticed = {}
    for _, _, args in [row for row in TOKEN_PATTERNS + GRIDS if row[1] == name]:
        lengths = [int(np.prod(args["shape"]))] if "shape" in args else LENGTHS
        for key in [key for key, value in args.items() if type(value) is int]:
            for n in lengths:
                mask = expected_or_error(name, args, positions(n), n)
                moved = expected_or_error(name, {**args, key: args[key] + 1}, positions(n), n)
                differs = mask is not None and (moved is None or (mask != moved).any())
                noticed[key] = noticed.get(key, False) or differs
    assert all(noticed.values()), noticed
