"""`patterndsl show` and the pictures behind it."""

import numpy as np
import pytest

import patterndsl as pd
from patterndsl import plot
from tests.cli import patterndsl

HEADLINE = "causal & (local(4) | global(tokens=[0]) | hierarchical(factor=4))"


@pytest.mark.parametrize(
    "spec", [HEADLINE, "strided(5) | local(2)", "causal & sinks(1)", "random(2, block=8)"]
)
@pytest.mark.parametrize("n", [1, 7, 64, 100])
def test_one_cell_a_pair_is_the_mask(spec, n):
    spec = pd.parse(spec)
    drawn = plot.picture(spec, n, cells=n)
    slots = spec.slots(n)
    assert drawn.exact
    np.testing.assert_array_equal(drawn.panels[0].density, spec.mask(n))
    for panel in drawn.panels[1:]:
        expected = np.zeros((n, n))
        for i in np.flatnonzero(slots.level == panel.level):
            expected[:, slots.start[i] : slots.stop[i]] = slots.counts[:, i, None]
        np.testing.assert_array_equal(panel.density, expected)


@pytest.mark.parametrize(("n", "cells"), [(100, 10), (1000, 64), (97, 10)])
def test_cells_hold_the_share_of_their_pairs(n, cells):
    spec = pd.parse(HEADLINE)
    density = plot.picture(spec, n, cells=cells).panels[0].density
    size = -(-n // cells)
    mask = spec.mask(n)
    for i in range(len(density)):
        for j in range(len(density)):
            cell = mask[i * size : (i + 1) * size, j * size : (j + 1) * size]
            assert density[i, j] == pytest.approx(cell.mean())


def test_every_token_is_drawn_once_over_all_levels():
    """The levels of a hierarchy tile the square."""
    drawn = plot.picture(pd.parse("hierarchical(3)"), 81, cells=81)
    np.testing.assert_array_equal(sum(p.density for p in drawn.panels), np.ones((81, 81)))


def test_large_n_is_sampled_and_says_so():
    drawn = plot.picture(pd.parse("causal"), 10**9, cells=16)
    density = drawn.panels[0].density
    assert not drawn.exact
    assert (density[np.tril_indices(16, -1)] == 1).all() and (density[np.triu_indices(16, 1)] == 0).all()
    assert "sample" in plot.terminal(drawn)


def test_a_sampled_picture_is_close_to_the_exact_one():
    spec = pd.parse("causal & (local(300) | strided(7)) | hierarchical(4)")
    sampled = plot.picture(spec, 2000, cells=40)
    mask = spec.mask(2000)
    exact = mask.reshape(40, 50, 40, 50).mean(axis=(1, 3))
    density = sampled.panels[0].density
    assert ((density == 0) <= (exact == 0)).all(), "an empty cell is proved to be empty"
    assert np.abs(density - exact).mean() < 0.03


def test_strips_change_nothing(monkeypatch):
    spec = pd.parse(HEADLINE)
    whole = plot.picture(spec, 300, cells=32)
    monkeypatch.setattr(plot, "AT_ONCE", 1)
    for a, b in zip(whole.panels, plot.picture(spec, 300, cells=32).panels, strict=True):
        np.testing.assert_array_equal(a.density, b.density)


def test_terminal_picture():
    result = patterndsl("show", "-e", "causal & local(2)", "-n", 4)
    assert result.out == "tokens: 4\n██\n████\n  ████\n    ████\n"
    drawn = patterndsl("show", "-e", "causal", "-n", 24).out.splitlines()
    assert drawn[1] == "█▄" and drawn[12] == "█" * 23 + "▄"


def test_other_heads_and_layers_are_noted():
    by_head = "where(q, k: k % 2 == h)"
    assert patterndsl("show", "-e", by_head, "-n", 2).out.splitlines()[-1].startswith("note: this is head 0;")
    both = "layers { 0 => heads { 0 => self; _ => full }; _ => full }"
    assert "note: this is head 1;" in patterndsl("show", "-e", both, "-n", 4, "--head", 1).out
    drawn = patterndsl("show", "-e", both, "-n", 4, "--layer", 1).out
    assert "note: this is layer 1;" in drawn and "head" not in drawn


def test_panels_stand_beside_each_other_where_they_fit(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    first = patterndsl("show", "-e", HEADLINE, "-n", 256).out.splitlines()[0]
    assert "tokens: 256" in first and "level 1: 64 summaries of 4 tokens" in first
    monkeypatch.setenv("COLUMNS", "30")
    lines = patterndsl("show", "-e", HEADLINE, "-n", 256).out.splitlines()
    assert lines[0] == "tokens: 256"
    assert max(map(len, lines[1:9])) <= 30


def test_colours_differ_by_level_and_go_with_no_color(monkeypatch):
    panels = plot.picture(pd.parse("hierarchical(4)"), 64, cells=64)
    assert "\x1b[38;2;" in plot.terminal(panels, color=True)
    assert "\x1b" not in plot.terminal(panels, color=False)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_files(tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"mask.{ending}"
    assert patterndsl("show", "-e", HEADLINE, "-n", 64, "-o", path).code == 0
    head = path.read_bytes()[:5]
    assert head == (b"\x89PNG\r" if ending == "png" else b"<?xml")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = patterndsl("show", "-e", "causal", "-o", tmp_path / "a.png")
    assert result.code == 2 and "pip install 'patterndsl[plot]'" in result.err


def test_inputs(tmp_path):
    spec = tmp_path / "a.attn"
    spec.write_text("input doc: token\npattern main = causal & same(doc)\n")
    ids = tmp_path / "ids.npy"
    np.save(ids, np.array([0, 0, 1, 1]))
    assert patterndsl("show", spec, "-n", 4, "--input", f"doc={ids}").out.splitlines()[3] == "    ██"
    assert patterndsl("show", spec, "-n", 64, "--input", "doc=packed:4").code == 0
    missing = patterndsl("show", spec, "-n", 4)
    assert missing.code == 1 and "E401" in missing.err
    assert patterndsl("show", spec, "-n", 5, "--input", f"doc={ids}").code == 1
    np.save(ids, np.zeros((2, 64), int))
    assert patterndsl("show", spec, "-n", 64, "--input", f"doc={ids}").code == 1
    np.savez(tmp_path / "ids.npz", ids=np.arange(4))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("ids.npz", "text.npy"):
        result = patterndsl("show", spec, "--input", f"doc={tmp_path / name}")
        assert result.code == 2 and "is not a .npy file, as numpy.save writes one" in result.err
    for wrong in ("doc", "doc=nowhere.npy", f"doc={spec}", "doc=packed:0", "doc=packed:65", "doc=packed:x"):
        result = patterndsl("show", spec, "-n", 64, "--input", wrong)
        assert result.code == 2 and "--input" in result.err


@pytest.mark.parametrize(
    "arguments", [("-o", "mask.gif"), ("-o", "nowhere/mask.png"), ("--cells", "5000"), ("-n", "-1")]
)
def test_wrong_usage(arguments):
    result = patterndsl("show", "-e", "causal", *arguments)
    assert result.code == 2 and "error: " in result.err
