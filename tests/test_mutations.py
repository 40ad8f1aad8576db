"""For each oracle one deliberate fault that it must catch: a check that cannot fail checks nothing."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import patterndsl as pd
from patterndsl import horizon
from patterndsl.analysis import quadtree
from patterndsl.backends import reference
from patterndsl.backends.xla import logits
from patterndsl.ir import dense, interval, sets, text
from patterndsl.ir.expr import K, Q
from patterndsl.ir.nodes import Union
from patterndsl.passes import PASSES
from patterndsl.patterns import builtin, hierarchical
from patterndsl.plan import build, parts, rows
from tests.conformance.test_backends import SHAPES, compare
from tests.conformance.test_patterns import test_token_patterns as check_token_pattern
from tests.property.test_hierarchical import times_seen
from tests.property.test_passes import assert_same

Patch = pytest.MonkeyPatch


def mask_is_the_oracle() -> None:
    check_token_pattern("local(5)", "local", {"w": 5})


def each_token_is_seen_once() -> None:
    assert (times_seen(pd.hierarchical(4).slots(50), 50) == 1).all()


def plan_is_the_pattern() -> None:
    from tests.plan.test_plan import check, plan_of

    build.forget_plans()
    for spec in ("strided(3)", "local(5)"):
        check(plan_of(pd.parse(spec).module.main, 40, 40, 0), 0)


def attention_is_the_reference() -> None:
    build.forget_plans()
    compare("causal & local(9)", SHAPES["ragged"], "xla")


def reference_is_jax() -> None:
    from tests.conformance.test_peers import arrays, theirs

    reference._run.clear_cache()
    q, k, v = arrays(9, 9)
    np.testing.assert_allclose(pd.reference("causal", q, k, v), theirs(q, k, v, is_causal=True), atol=2e-5)


def streams_miss_nothing() -> None:
    from tests.test_stream import assert_nothing_is_missed

    horizon._of_nodes.cache_clear()
    assert_nothing_is_missed(pd.parse("causal & segment_memory(4, 3)"))


def passes_keep_the_meaning() -> None:
    module = pd.parse("local(3) | columns([0])").module
    for name in ("canonicalize", "subsume"):
        assert_same(module, PASSES[name].apply(module), 20, 0)


def sets_are_masks() -> None:
    kept = pd.parse("where(q, k: (k - 5) // 3 == q // 4)").mask(12)
    keep = ((K - 5) // 3).eq(Q // 4)
    assert sets.pairs(keep, 12, range(12)) == set(zip(*(x.tolist() for x in np.nonzero(kept)), strict=True))


def counts_are_dense() -> None:
    report = pd.analyze("causal & (local(7) | strided(5))", n=300)
    assert report.pairs == pd.parse("causal & (local(7) | strided(5))").mask(300).sum()


def text_reads_back() -> None:
    spec = pd.causal & (pd.local(4) | pd.columns([0]))
    assert pd.parse(str(spec)) == spec


def wider_window(patch: Patch) -> None:
    patch.setattr(builtin("local"), "keep", lambda self, q, k, n: abs(q - k) <= self.w)


def a_level_is_missing(patch: Patch) -> None:
    whole = hierarchical.Pyramid.summaries
    patch.setattr(hierarchical.Pyramid, "summaries", lambda pyramid, n: whole(pyramid, n)[1:])


def remainders_are_zero(patch: Patch) -> None:
    patch.setitem(interval._ABSTRACT, "mod", lambda xp, a, b: interval.Interval(0, 0, 0))


def all_blocks_are_full(patch: Patch) -> None:
    made = rows.group_rows

    def faulty(*args: Any) -> Any:
        return tuple(
            dataclasses.replace(
                g,
                segments=tuple(dataclasses.replace(s, partial=(False,) * s.width) for s in g.segments),
            )
            for g in made(*args)
        )

    patch.setattr(parts, "group_rows", faulty)


def predicate_is_not_applied(patch: Patch) -> None:
    patch.setattr(logits, "evaluate", lambda *args: True)


def gradients_of_weights_are_doubled(patch: Patch) -> None:
    module = sys.modules["patterndsl.backends.xla.backward"]  # the package names its function so, too
    true = module.matmul
    patch.setattr(module, "matmul", lambda a, b, over: true(a, b, over) * (2 if over == (3, 3) else 1))


def complement_of_causal(patch: Patch) -> None:
    patch.setattr(dense, "evaluate", lambda *args: ~np.asarray(dense_evaluate(*args)))


dense_evaluate = dense.evaluate


def a_member_is_lost(patch: Patch) -> None:
    from patterndsl.passes import canonicalize

    true = canonicalize._Rules.node

    def faulty(self: Any, p: Any) -> Any:
        return p.members[0] if isinstance(p, Union) else true(self, p)

    patch.setattr(canonicalize._Rules, "node", faulty)


def division_loses_its_sign(patch: Patch) -> None:
    true = sets._divide
    patch.setattr(sets, "_divide", lambda x, divisor: true(x, divisor).neg())


def one_class_of_tiles(patch: Patch) -> None:
    patch.setattr(quadtree, "_gather", lambda of_class, step: np.zeros_like(true_gather(of_class, step)))


true_gather = quadtree._gather


def no_parentheses(patch: Patch) -> None:
    patch.setattr(text, "_node_at", lambda p, level: text._node(p)[0])


def the_furthest_key_is_forgotten(patch: Patch) -> None:
    greatest = sets.greatest
    patch.setattr(sets, "greatest", lambda *args, **how: greatest(*args, **how) - 4)


FAULTS: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (wider_window, mask_is_the_oracle),
    (a_level_is_missing, each_token_is_seen_once),
    (remainders_are_zero, plan_is_the_pattern),
    (all_blocks_are_full, plan_is_the_pattern),
    (all_blocks_are_full, attention_is_the_reference),
    (predicate_is_not_applied, attention_is_the_reference),
    (gradients_of_weights_are_doubled, attention_is_the_reference),
    (complement_of_causal, reference_is_jax),
    (a_member_is_lost, passes_keep_the_meaning),
    (division_loses_its_sign, sets_are_masks),
    (one_class_of_tiles, counts_are_dense),
    (no_parentheses, text_reads_back),
    (the_furthest_key_is_forgotten, streams_miss_nothing),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=[f"{f.__name__}-{c.__name__}" for f, c in FAULTS])
def test_the_oracle_catches_the_fault(
    fault: Callable[[Patch], None], check: Callable[[], None], monkeypatch: Patch
) -> None:
    check()
    with monkeypatch.context() as patch:
        fault(patch)
        with pytest.raises((AssertionError, pd.SpecError)):
            check()
    build.forget_plans()
    horizon._of_nodes.cache_clear()


def test_a_golden_file_is_compared(golden: Any, tmp_path: Any, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "case.txt"
    path.write_text("as it was\n")
    golden(path, "as it was\n")
    if not request.config.getoption("--update-golden"):
        with pytest.raises(AssertionError):
            golden(path, "otherwise\n")
