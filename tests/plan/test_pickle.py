"""Plans go from process to process: nodes are interned again, tables of draws come along."""

from __future__ import annotations

import copy
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest

import patterndsl as pd
from patterndsl.ir.normal import TOKENS
from patterndsl.plan import build
from patterndsl.plan.plan import Plan
from tests.plan.test_plan import check, plan_of

SPECS = [
    "causal & (local(8) | random(2, block=4) | hierarchical(3) | global([0, 8:12]))",
    "heads { 0:2 => local(4); _ => blocks(logsparse, 4) & shift(local(9), 2) }",
    "mix(causal & local(5), tree(2), strided(3))",
    "local(4) + local(7) + where(q, k: k % 3 == 0)",
]


def _plan(text: str) -> Plan:
    return pd.compile(text).plan(100, 90)


@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_is_the_same_plan(text: str, again: Callable[[Plan], Plan]) -> None:
    plan = _plan(text)
    other = again(plan)
    assert other.stats() == plan.stats() and other.explain() == plan.explain()
    for mine, theirs in zip(plan.groups, other.groups, strict=True):
        assert mine.node is theirs.node
        for a, b in zip(mine.branches, theirs.branches, strict=True):
            for p, q in zip(a.parts, b.parts, strict=True):
                for s, t in zip(p.sources, q.sources, strict=True):
                    assert s.pool is t.pool and s.term.keep is t.term.keep and s.term.count is t.term.count
    check(other, 10)


WRITE = """
import pickle, sys
import patterndsl as pd
plan = pd.compile(sys.argv[1]).plan(100, 90)
sys.stdout.buffer.write(pickle.dumps((plan, plan.explain())))
"""


@pytest.mark.parametrize("text", SPECS[:1])
def test_a_plan_of_another_process(text: str) -> None:
    root = pathlib.Path(__file__).parents[2]
    written = subprocess.run([sys.executable, "-c", WRITE, text], check=True, capture_output=True, cwd=root)
    build.forget_plans()
    other, explained = pickle.loads(written.stdout)
    mine = _plan(text)
    assert other.groups[0].node is mine.groups[0].node
    assert other.explain() == mine.explain() == explained
    assert any(s.pool is TOKENS for p in other.groups[0].branches[0].parts for s in p.sources)
    check(other, 10)


def test_the_cache_tells_apart_what_a_plan_depends_on() -> None:
    node = pd.parse("causal & local(8)").module.main
    of = [
        plan_of(node, 64, 64, 0),
        plan_of(node, 65, 64, 0),
        plan_of(node, 64, 60, 0),
        plan_of(node, 64, 60, 4),
        plan_of(node, 64, 60, None),
        plan_of(node, 64, 64, 0, (16, 8)),
        plan_of(pd.parse("causal & local(9)").module.main, 64, 64, 0),
    ]
    assert len({id(p) for p in of}) == len(of)
    assert plan_of(pd.parse("causal & local(8)").module.main, 64, 64, 0) is of[0]


def test_equal_specs_share_a_plan() -> None:
    """However they are made: parsed, or built in Python."""
    plans = [pd.compile(s).plan(512) for s in ("causal & local(8)", pd.causal & pd.local(8))]
    assert plans[0] is plans[1]
