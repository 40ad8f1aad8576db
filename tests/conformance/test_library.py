"""Every file of the shipped library: documented, and equal to what was published (some in `test_chosen`)."""

from pathlib import Path

import numpy as np
import pytest

import patterndsl as pd
import patterndsl.grammar.lib
from tests.conformance.compare import by_slot, found_by_slot
from tests.oracles import oracle, positions, published, slots, summaries
from tests.oracles.published import h_transformer_level, longnet_residue

LIBRARY = Path(patterndsl.grammar.lib.__file__).parent
FILES = sorted(LIBRARY.glob("*.attn"))
LENGTHS = (1, 2, 7, 64, 65, 130)
SHAPES = [(n, n) for n in LENGTHS] + [(7, 3), (65, 20), (64, 1), (7, 12), (2, 70)]

NAMES = [
    "axial", "bigbird", "block_diffusion", "combiner", "compressive", "document_causal", "etc", "gemma3",
    "gpt_oss", "h_transformer", "llama4_chunked", "logsparse", "longformer", "longnet", "longt5",
    "minference", "mistral", "moba", "natten2d", "nsa", "prefix_lm", "quest", "radial", "reformer", "routing",
    "sliding_tile", "sparse_transformer_fixed", "sparse_transformer_strided", "star", "streaming_llm",
    "swin", "transformer_xl", "tree_decode",
]  # fmt: skip

# File, the parameters given to it, and those given to the oracle.
ONE_DIMENSIONAL = [
    ("longformer", {"window": 8}, {"window": 8, "tokens": 1}),
    ("longformer", {"window": 5}, {"window": 5, "tokens": 1}),
    ("sparse_transformer_strided", {"stride": 8}, {"stride": 8}),
    ("sparse_transformer_fixed", {"block": 8, "summary": 3}, {"block": 8, "summary": 3}),
    ("streaming_llm", {"sink_tokens": 3, "window": 9}, {"sink_tokens": 3, "window": 9}),
    ("mistral", {"window": 10}, {"window": 10}),
    ("logsparse", {}, {}),
    ("prefix_lm", {"prefix": 9}, {"prefix": 9}),
    ("transformer_xl", {"segment": 8, "memory": 8}, {"segment": 8, "memory": 8}),
    ("transformer_xl", {"segment": 7, "memory": 17}, {"segment": 7, "memory": 17}),
    ("llama4_chunked", {"size": 9}, {"size": 9}),
    ("block_diffusion", {"block": 4}, {"block": 4}),
    ("block_diffusion", {"block": 5}, {"block": 5}),
    ("etc", {"globals": 3, "radius": 4}, {"globals": 3, "radius": 4}),
    ("radial", {"frame": 5, "block": 2}, {"frame": 5, "block": 2}),
    ("radial", {"frame": 3, "block": 2}, {"frame": 3, "block": 2}),
]


def load(name):
    return pd.load(LIBRARY / f"{name}.attn")


def test_the_library_is_complete():
    assert [path.stem for path in FILES] == NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_names_its_source(path):
    header = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line)
    assert len(header) >= 2 and len(header[0]) > 20
    assert any(line.startswith("# Source: ") for line in header)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nsa"])  # whose branches have no mask
def test_importable_from_anywhere(name):
    spec = pd.parse(f"import {name} as published_pattern\npattern main = published_pattern & causal")
    n = {"axial": 64 * 64, "natten2d": 56 * 56, "swin": 56 * 56, "sliding_tile": 30 * 48 * 80}.get(name, 8)
    kinds = load(name).module.inputs
    inputs = {x: np.zeros(n, int) if kind == "token" else np.ones((16, 4)) for x, kind in kinds.items()}
    operands = np.eye(1, 4)[None], np.random.default_rng(0).standard_normal((n, 1, 4))
    alone = load(name).slots(n, 1, inputs=inputs, operands=operands).counts
    found = spec.slots(n, 1, inputs=inputs, operands=operands).counts
    assert found.sum() == alone.sum()  # the last query is causal anyway


@pytest.mark.parametrize("name, params, args", ONE_DIMENSIONAL)
def test_one_dimensional(name, params, args):
    spec = load(name)
    for n, n_q in SHAPES:
        expected = published(name)(positions(n, n_q), n, **args)
        np.testing.assert_array_equal(spec.mask(n, n_q, params=params), expected, err_msg=f"n={n}, n_q={n_q}")


@pytest.mark.parametrize("name, params, args", [row for row in ONE_DIMENSIONAL if row[1]])
def test_one_step_in_any_parameter_would_be_noticed(name, params, args):
    spec = load(name)
    expected = published(name)(positions(130), 130, **args)
    for parameter, value in params.items():
        for step in (1, 2):  # longformer halves its window
            moved = spec.mask(130, params={**params, parameter: value + step})
            if (moved != expected).any():
                break
        else:
            pytest.fail(f"{parameter} changes nothing")


def test_parameters_of_an_import_can_be_set():
    spec = pd.parse("import mistral as m\npattern main = m | sinks(1)")
    expected = published("streaming_llm")(positions(65), 65, sink_tokens=0, window=7)
    expected[:, 0] = True
    np.testing.assert_array_equal(spec.mask(65, params={"m.window": 7}), expected)


@pytest.mark.parametrize("name", sorted({row[0] for row in ONE_DIMENSIONAL}))
def test_published_defaults(name):
    np.testing.assert_array_equal(load(name).mask(700), published(name)(positions(700), 700))


@pytest.mark.parametrize("name", ["gemma3", "gpt_oss"])
def test_layers(name):
    for layer in range(13):
        expected = published(name)(positions(65), 65, window=9, layer=layer)
        np.testing.assert_array_equal(load(name).mask(65, params={"window": 9}, layer=layer), expected)


def test_llama4_all_layers():
    spec = pd.parse("import llama4_chunked as llama\npattern main = llama.all_layers()")
    n = 8195
    for layer in (0, 2, 3, 7, 8):
        expected = published("llama4_layers")(positions(n, 4), n, layer=layer)
        np.testing.assert_array_equal(spec.mask(n, 4, layer=layer), expected)


# What a file has beside its `main`: halves for separate heads or layers, and variants.
BESIDE_MAIN = {
    "sparse_transformer_fixed.own_block(8)": lambda i, j: (j <= i) & (j >= i - i % 8),
    "sparse_transformer_fixed.columns_only(8, 3)": lambda i, j: (j <= i) & np.isin(j % 8, (5, 6, 7)),
    "sparse_transformer_strided.nearby(8)": lambda i, j: (i - 7 <= j) & (j <= i),
    "sparse_transformer_strided.column(8)": lambda i, j: np.isin(i - j, np.arange(0, 1000, 8)),
    "transformer_xl.same_length(9)": lambda i, j: np.isin(i - j, np.arange(9)),
    "block_diffusion.sampling(5)": lambda i, j: j < i - i % 5 + 5,
    "axial.own_row(10, 13)": lambda i, j: (j >= i - i % 13) & (j < i - i % 13 + 13),
    "axial.own_column(10, 13)": lambda i, j: np.isin(i - j, np.arange(-130, 131, 13)),
}


@pytest.mark.parametrize("name", BESIDE_MAIN)
def test_beside_main(name):
    file, _, call = name.partition(".")
    spec = pd.parse(f"import {file} as p\npattern main = p.{call}")
    for n, n_q in [(130, 130), (130, 20)] + [(65, 65), (2, 2)] * (file != "axial"):
        i, j = positions(n, n_q)[:, None], np.arange(n)
        np.testing.assert_array_equal(spec.mask(n, n_q), BESIDE_MAIN[name](i, j))


def test_longformer_with_arguments():
    spec = pd.parse("import longformer as lf\npattern main = lf.longformer(window=6, globals=3)")
    expected = published("longformer")(positions(65), 65, window=6, tokens=3)
    np.testing.assert_array_equal(spec.mask(65), expected)
    spec = pd.parse("import longformer as lf\npattern main = lf.dilated_longformer(3, 4, globals=2)")
    expected = published("dilated_longformer")(positions(65), 65, side=3, dilation=4, tokens=2)
    np.testing.assert_array_equal(spec.mask(65), expected)


@pytest.mark.parametrize("random_blocks", [1, 2, 3])
def test_bigbird(random_blocks):
    params = {"block": 4, "random_blocks": random_blocks, "seed": 7}
    spec, draw = load("bigbird"), pd.parse(f"random({random_blocks}, block=4, seed=7)")
    for n in LENGTHS:
        table = [np.flatnonzero(row).tolist() for row in draw.mask(n)[::4, ::4]]
        for n_q in {n, 1, max(1, n // 2)}:
            expected = published("bigbird")(positions(n, n_q), n, block=4, random_table=table)
            np.testing.assert_array_equal(spec.mask(n, n_q, params=params), expected)


def test_longnet_weights():
    params = {"segment_1": 8, "segment_2": 24, "dilation_1": 1, "dilation_2": 3}
    spec = load("longnet")
    for n, n_q in SHAPES:
        expected = published("longnet")(positions(n, n_q), n, sizes=(8, 24), dilations=(1, 3))
        np.testing.assert_array_equal(spec.slots(n, n_q, params=params).counts, expected)
        np.testing.assert_array_equal(spec.mask(n, n_q, params=params), expected > 0)


def test_longnet_by_head():
    assert [longnet_residue(head, 8, 3) for head in range(8)] == [0, 0, 0, 1, 1, 1, 2, 2]
    branches = ((8, 1), (24, 3), (30, 5))
    main = " + ".join(f"ln.branch_by_head({size}, {dilation})" for size, dilation in branches)
    spec = pd.parse(f"import longnet as ln\npattern main = {main}")
    sizes, dilations = zip(*branches, strict=True)
    for head in range(8):
        residues = [longnet_residue(head, 8, dilation) for dilation in dilations]
        expected = published("longnet")(
            positions(65), 65, sizes=sizes, dilations=dilations, residues=residues
        )
        np.testing.assert_array_equal(spec.slots(65, head=head, num_heads=8).counts, expected)


def test_document_causal():
    documents = np.array([3, 3, 1, 1, 1, 3, 0, 2, 2])
    for n, n_q in ((1, 1), (9, 9), (9, 4)):
        expected = published("document_causal")(positions(n, n_q), n, doc=documents[:n])
        mask = load("document_causal").mask(n, n_q, inputs={"doc": documents[:n]})
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("window, dilation, stride", [(3, 1, 1), (4, 1, 2), (3, 2, 2), (7, 1, 1)])
def test_natten2d(window, dilation, stride):
    args = {"height": 7, "width": 9, "window": window, "dilation": dilation, "stride": stride}
    for n_q in (63, 5):
        expected = published("natten2d")(positions(63, n_q), 63, **args)
        np.testing.assert_array_equal(load("natten2d").mask(63, n_q, params=args), expected)


def test_axial():
    for height, width in ((5, 13), (1, 7), (8, 8)):
        expected = published("axial")(positions(height * width), height * width, height=height, width=width)
        params = {"height": height, "width": width}
        np.testing.assert_array_equal(load("axial").mask(height * width, params=params), expected)


@pytest.mark.parametrize("block", [2, 4, 6])
@pytest.mark.parametrize("causal", [False, True])
def test_h_transformer_levels(block, causal):
    """A query sees every token at the published level; `fine` sees none at a coarser one."""
    for function, exact in (("h_transformer", True), ("fine", False)):
        text = f"import h_transformer as ht\npattern main = ht.{function}({block})"
        spec = pd.parse(text + (" & causal" if causal else ""))
        for n in (1, 2, 7, 64, 65):
            for (level, start, stop), column in found_by_slot(spec.slots(n)).items():
                for q in np.flatnonzero(column):
                    levels = {h_transformer_level(q, token, block) for token in range(start, stop)}
                    assert levels == {level} if exact else level <= min(levels)


def test_h_transformer_is_the_multipole_split():
    expected = by_slot(*slots(positions(65), 65, factor=2, window=1, leaf=16))
    assert found_by_slot(load("h_transformer").slots(65)) == expected


def test_star():
    for main, ring in (("s.star", False), ("s.ring", True)):
        spec = pd.parse(f"import star as s\npattern main = {main}")
        for n in (1, 2, 3, 7):
            np.testing.assert_array_equal(spec.mask(n), published("star")(positions(n), n, ring=ring))


def test_radial_for_wan():
    spec = pd.parse("import radial as r\npattern main = r.wan(6, 2)")
    np.testing.assert_array_equal(
        spec.mask(70, 40), published("radial")(positions(70, 40), 70, frame=6, block=2, wan=True)
    )


def test_swin():
    for layer in (0, 1, 2, 3):
        expected = oracle("windows")(positions(64), 64, shape=(8, 8), size=4, shift=2 * (layer % 2))
        mask = load("swin").mask(64, params={"height": 8, "width": 8, "window": 4}, layer=layer)
        np.testing.assert_array_equal(mask, expected)


def test_sliding_tile():
    shape = {"frames": 18, "height": 24, "width": 32}
    n = 18 * 24 * 32
    expected = oracle("tiles")(positions(n, 1), n, shape=(18, 24, 32), tile=(6, 8, 8), window=(3, 3, 3))
    np.testing.assert_array_equal(load("sliding_tile").mask(n, 1, params=shape), expected)


SUMMARISED = [
    ("longt5", "longt5", {"radius": 3, "block": 4}),
    ("longt5.decoder(3, 4)", "longt5_decoder", {"radius": 3, "block": 4}),
    ("combiner", "combiner", {"segment": 5}),
    ("combiner.bidirectional(5)", "combiner_bidirectional", {"segment": 5}),
    ("compressive", "compressive", {"segment": 6, "memory": 9, "compressed": 4, "rate": 3}),
    ("compressive", "compressive", {"segment": 4, "memory": 2, "compressed": 100, "rate": 2}),
]


@pytest.mark.parametrize("main, name, args", SUMMARISED, ids=[row[0] for row in SUMMARISED])
def test_summaries(main, name, args):
    file, dot, call = main.partition(".")
    spec = pd.parse(f"import {file} as p\npattern main = p.{call}") if dot else load(main)
    for n, n_q in SHAPES:
        expected = by_slot(*getattr(summaries, name)(positions(n, n_q), n, **args))
        found = found_by_slot(spec.slots(n, n_q, params=None if dot else args), overlapping=name == "longt5")
        assert found == expected, f"n={n}, n_q={n_q}"


def test_tree_decode():
    """A random forest, against walks from each token to its root."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 40):
        parents = np.array([rng.integers(-1, max(i, 1)) if i > 5 else i - 1 for i in range(n)])
        wanted = np.eye(n, dtype=bool)
        for i in range(n):
            j = i
            while (j := parents[j]) >= 0:
                wanted[i, j] = True
        spec = load("tree_decode")
        np.testing.assert_array_equal(spec.mask(n, inputs=pd.tree_order(parents)), wanted)
        np.testing.assert_array_equal(spec.mask(n, 1, inputs=pd.tree_order(parents)), wanted[-1:])


@pytest.mark.parametrize("parents, what", [([-1, 1], "token 1 is 1"), ([-2], "-2"), ([0.5], "float64")])
def test_trees_that_are_none(parents, what):
    with pytest.raises(pd.SpecError, match=what):
        pd.tree_order(parents)
