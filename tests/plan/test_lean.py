"""The plan that is chosen computes little more than is kept, with the rates of either CPU backend."""

from __future__ import annotations

import pytest

import patterndsl as pd
from patterndsl.plan.cost import Workload


@pytest.mark.parametrize("backend", ["xla", "cpu_native"])
@pytest.mark.parametrize(
    ("text", "n", "most"),
    [
        ("causal & local(512)", 16384, 1.3),
        ("local(256)", 16384, 1.3),
        ("causal & strided(64)", 16384, 1.5),
        ("causal & strided(128)", 65536, 1.5),
        ("strided(100)", 16384, 1.5),
        ("causal & strided(100)", 65536, 1.5),
        ("dilated(128, 4)", 16384, 1.5),
        ("causal & dilated(256, 4)", 16384, 1.5),
        ("causal & dilated(256, 8)", 65536, 1.5),
        ("neighborhood([128, 128], 13)", 16384, 4.0),
        ("neighborhood([128, 128], 7)", 16384, 4.0),
        ("random(3, block=64)", 16384, 1.1),
        ("causal & hierarchical(4)", 65536, 5.0),
        ("hierarchical(4, leaf=64)", 65536, 2.5),
    ],
)
def test_the_chosen_plan_computes_little_more_than_is_kept(
    text: str, n: int, most: float, backend: str
) -> None:
    workload = Workload(heads=4, kv_heads=4, platform="cpu", backend=backend)
    computed = pd.compile(text).plan(n, num_heads=4, workload=workload).stats().computed
    assert computed <= most * 4 * pd.analyze(text, n=n).slots
