"""Every pass keeps the dense meaning: tokens, counts and summaries, wherever the queries stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import patterndsl as pd
from patterndsl.ir import resolve
from patterndsl.ir.dense import Counts, dense
from patterndsl.ir.nodes import Module
from patterndsl.ir.verify import verify
from patterndsl.passes import DEFAULT, PASSES, run
from tests.strategies import as_module, fact_values, input_values, nodes

MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

lengths = st.integers(1, 64)
offsets = st.integers(-5, 5)


def meaning(module: Module, n: int, first: int, last: int) -> Counts:
    node = resolve.at_length(resolve.inline(module).main, n)
    data = {**input_values(module.inputs, n), **fact_values(node, n)}
    return dense(node, np.arange(first, last), n, data)


def assert_same(before: Module, after: Module, n: int, offset: int) -> None:
    """Also for queries before the first key and after the last."""
    first, last = min(offset, 0), n + max(offset, 1)
    old, new = (meaning(m, n, first, last) for m in (before, after))
    for pool in {*old, *new}:
        zeros = np.zeros((last - first, pool.chunks(n)), np.int32)
        np.testing.assert_array_equal(
            old.get(pool, zeros), new.get(pool, zeros), f"{before.main} -> {after.main}"
        )


@pytest.mark.parametrize("name", PASSES)
@MANY
@given(nodes(3, choice=True).map(as_module), lengths, offsets)
def test_a_pass_keeps_the_meaning(name: str, module: Module, n: int, offset: int) -> None:
    after = PASSES[name].apply(module)
    verify(after)
    assert_same(module, after, n, offset)


@MANY
@given(nodes(4, choice=True).map(as_module), lengths, offsets)
def test_the_pipeline_keeps_the_meaning(module: Module, n: int, offset: int) -> None:
    assert_same(module, run(module), n, offset)


@MANY
@given(nodes(3, choice=True).map(as_module), lengths, offsets)
def test_so_does_every_pass_there_is(module: Module, n: int, offset: int) -> None:
    assert_same(module, run(module, [*DEFAULT, "split_disjoint"]), n, offset)


@settings(MANY, max_examples=40)
@given(nodes(3, choice=True).map(as_module))
def test_the_pipeline_is_done_after_two_rounds(module: Module) -> None:
    twice = run(run(module))
    assert run(twice).main is twice.main


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("causal + causal", "causal"),  # a duplicate under `+` is a count
        ("hierarchical(2, levels=1) & local(4)", "hierarchical(2, levels=1)"),  # which restricts summaries
        ("transpose(rows([0]))", "columns([0])"),  # which a query past the keys does not see
        ("(causal + self) & (causal + self)", "causal + self"),
    ],
)
def test_the_comparison_catches_rewrites_that_are_nearly_right(before: str, after: str) -> None:
    with pytest.raises(AssertionError):
        assert_same(pd.parse(before).module, pd.parse(after).module, 16, 3)
