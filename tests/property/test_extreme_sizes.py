"""Sizes far beyond n: answered like any size beyond n, without numbers or arrays that no machine holds."""

from __future__ import annotations

import numpy as np
import pytest

import patterndsl as pd


@pytest.mark.parametrize(
    ("huge", "large"),
    [
        ("hierarchical(17, levels=60)", "hierarchical(17, levels=3)"),
        ("hierarchical(10**12, window=0)", "hierarchical(1000, window=0)"),
        (
            "hierarchical(2, leaf=10**12, levels=2) & strided(3)",
            "hierarchical(2, leaf=1000, levels=2) & strided(3)",
        ),
        ("local(10**12)", "local(1000)"),
        ("chunked(10**12)", "chunked(1000)"),
    ],
)
def test_a_size_beyond_n_is_like_any_other(huge: str, large: str) -> None:
    first, second = (pd.parse(s).slots(60) for s in (huge, large))
    kept = [slots.counts[:, slots.counts.any(axis=0)] for slots in (first, second)]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert first.stop.max() == 60
