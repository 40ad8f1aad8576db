"""Patterns that name members, which a plan may lay out apart: their union is the pattern, and it pays."""

from __future__ import annotations

import numpy as np
import pytest

import patterndsl as pd
from patterndsl.ir.dense import dense
from patterndsl.ir.nodes import Pattern
from patterndsl.ir.normal import TOKENS
from patterndsl.plan.cost import Workload


@pytest.mark.parametrize("n", [1, 2, 33, 300, 1025])
@pytest.mark.parametrize(
    "text", ["butterfly", "butterfly(block=3)", "butterfly(block=64)", "logsparse", "logsparse(base=3)",
             "logsparse(base=40)", "global([0, -1])"],
)  # fmt: skip
def test_the_members_make_the_pattern(text: str, n: int) -> None:
    node = pd.parse(text).module.main
    assert isinstance(node, Pattern)
    positions = np.arange(-3, n + 40)  # queries may stand before the first key and after the last
    want = dense(node, positions, n)[TOKENS]
    found = sum(dense(m, positions, n)[TOKENS] for m in node.members(n))
    np.testing.assert_array_equal(found > 0, want > 0)
    if text != "global([0, -1])":
        np.testing.assert_array_equal(found, want)  # they are disjoint, too


@pytest.mark.parametrize(("text", "most"), [("butterfly", 16.0), ("causal & logsparse", 25.0)])
def test_taken_apart_they_compute_fewer_pairs(text: str, most: float) -> None:
    n = 16384
    workload = Workload(heads=4, kv_heads=4, platform="cpu", backend="cpu_native")
    plan = pd.compile(text).plan(n, num_heads=4, workload=workload)
    assert len(plan.groups[0].branches[0].parts) > 1
    assert plan.stats().computed <= most * 4 * int(pd.analyze(text, n=n).pairs)
