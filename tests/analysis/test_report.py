"""`analyze` and its report."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import patterndsl as pd
from patterndsl.analysis import Between
from patterndsl.analysis.cost import node_tiles
from patterndsl.diagnostics import SpecError
from patterndsl.plan.plan import PartChoice

HEADLINE = "causal & (local(128) | global(tokens=[0]) | hierarchical(factor=4))"


def test_figures_of_a_window() -> None:
    """Every number by hand: 4 heads' worth of a window of 3 under causal, at 10 tokens."""
    report = pd.analyze("causal & local(3)", n=10, num_heads=4, head_dim=8)
    assert report.pairs == report.slots == 4 * (1 + 2 + 8 * 3)
    assert report.density == pytest.approx(27 / 100)
    assert report.per_query == (1, pytest.approx(2.7), 3)
    assert report.rows_without_keys == (0, None)
    assert str(report.growth) == "Θ(n)"
    # one tile of 16 queries × 16 keys a head
    assert report.cost is not None and report.plan is not None
    assert report.cost.computed == report.plan.stats().computed == 4 * 16 * 16
    assert report.flops == (4 * 8 * 1024, 10 * 8 * 1024)
    assert report.lengths[0].waste == pytest.approx(1024 / 108)


def test_headline_side_by_side() -> None:
    report = pd.analyze(HEADLINE, n=[8192, 65536, 1_048_576])
    assert str(report.growth) == "Θ(n log n)"
    assert report.at(65536).pairs == 8_445_888
    assert report.at(1_048_576).slots == 172_482_516
    assert report.at(8192).per_query[::2] == (1, 159)
    assert "`hierarchical(4, leaf=128)` sees each token once" in " ".join(report.notes)
    cost = report.at(1_048_576).cost
    assert cost is not None and not cost.predicted
    text = str(report)
    assert "172,482,516" in text and "summaries, level 9" in text
    lines = text.split("\n\n")[1].splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    with pytest.raises(ValueError, match=r"report\.at"):
        _ = report.pairs
    with pytest.raises(KeyError, match="analysed at 8192"):
        report.at(5)


def test_the_report_is_fit_for_json() -> None:
    for spec in (HEADLINE, "input doc: token\npattern main = causal & same(doc)", "strided(3) + full"):
        data = json.loads(json.dumps(pd.analyze(spec, n=[64, 200]).to_dict(), allow_nan=False))
        assert [x["n"] for x in data["lengths"]] == [64, 200]
        assert data["growth"]["class"] and data["growth"]["reason"]
        assert data["lengths"][0]["plan"]["computed"] == data["lengths"][0]["cost"]["computed"]


def test_rows_without_keys_are_counted_with_an_example() -> None:
    report = pd.analyze("causal & ~self & ~rows([5])", n=64)
    assert report.rows_without_keys == (2, 0)
    assert "2 (first 0)" in str(report)


def test_heads_are_added_up() -> None:
    spec = "heads { 0:2 => full; 2 => none; 3 => local(2) }"
    report = pd.analyze(spec, n=8)
    assert report.num_heads == 4
    assert report.pairs == 2 * 64 + 22
    assert report.rows_without_keys == (8, 0)
    assert report.per_query == (0, pytest.approx(150 / 32), 8)


def test_layers_are_picked() -> None:
    spec = "layers { every 6 => full; _ => local(2) }"
    assert pd.analyze(spec, n=8, layer=5).pairs == 64
    assert pd.analyze(spec, n=8, layer=4).pairs == 22


def test_params() -> None:
    spec = "param w = 2\npattern main = causal & local(w)"
    assert pd.analyze(spec, n=8, params={"w": 3}).pairs == 1 + 2 + 6 * 3


def test_documents_are_bounded_or_given() -> None:
    spec = "input doc: token\npattern main = causal & same(doc)"
    report = pd.analyze(spec, n=64)
    assert report.pairs == Between(64, 64 * 65 // 2)
    assert report.per_query == (1, Between(1.0, 32.5), Between(1, 64))
    assert report.rows_without_keys == (0, None)  # whatever the documents are, a query sees itself
    assert "depends on the run-time inputs (doc)" in str(report)
    elsewhere = pd.analyze("input doc: token\npattern main = same(doc) - self", n=64)
    assert elsewhere.rows_without_keys is None
    exact = pd.analyze(spec, n=64, inputs={"doc": np.repeat([0, 1], 32)})
    assert exact.pairs == 2 * 32 * 33 // 2
    assert exact.rows_without_keys == (0, None)


def test_a_length_beyond_all_bounds_is_answered() -> None:
    report = pd.analyze(HEADLINE, n=10**12)
    assert str(report.growth) == "Θ(n log n)"
    assert isinstance(report.slots, Between) and report.slots.lower == 0
    assert "beyond what is counted exactly" in str(report)
    assert report.plan is None


def test_a_table_too_large_is_answered_with_bounds() -> None:
    report = pd.analyze("causal & (random(2) | local(3))", n=10**12)
    assert report.slots == Between(0, 133 * 10**12)
    assert str(report.growth) == "Θ(n)"
    assert "bounds only: the table of random blocks would take" in str(report)


def test_a_plan_too_large_to_be_made_is_predicted() -> None:
    report = pd.analyze("strided(64)", n=2**20)
    assert report.plan is None and report.cost is not None
    assert report.cost.predicted
    assert report.cost.computed == 2**40


@pytest.mark.parametrize("spec", ["causal", "causal & local(200)", "strided(3)", "~local(150)", "random(2)"])
@pytest.mark.parametrize("n", [128, 700, 1024])
def test_tiles_are_those_of_the_plan(spec: str, n: int) -> None:
    as_it_comes = (((PartChoice(None, False, "identity", 128, 128),),),)
    stats = pd.Attention(pd.parse(spec), None, 0, "auto", None, as_it_comes).plan(n).stats()
    found = node_tiles(pd.parse(spec).bind(n), n)
    assert found.exact
    assert found.full + found.partial == stats.full_blocks + stats.partial_blocks


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n": 0}, "`n`"),
        ({"n": []}, "`n`"),
        ({"n": True}, "`n`"),
        ({"n": 2.5}, "`n`"),
        ({"num_heads": 0}, "`num_heads`"),
        ({"layer": -1}, "`layer`"),
        ({"n": [4, 8], "inputs": {}}, "`inputs`"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        pd.analyze("causal", **arguments)  # type: ignore[arg-type]


def test_inputs_are_one_sequence() -> None:
    spec = "input doc: token\npattern main = same(doc)"
    with pytest.raises(SpecError, match=r"shape \[2, 8\]"):
        pd.analyze(spec, n=8, inputs={"doc": np.zeros((2, 8), int)})


def test_a_spec_that_is_wrong_at_this_length_is_refused() -> None:
    with pytest.raises(SpecError, match="token 64 is out of range"):
        pd.analyze("columns([64])", n=64)


def test_jax_is_not_imported() -> None:
    code = (
        "import sys, patterndsl as pd; pd.analyze('causal & local(3)', n=64); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
