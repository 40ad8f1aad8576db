"""The normal form that plans are made from says the same as the dense definition, slot by slot."""

import numpy as np
import pytest

import patterndsl as pd
from patterndsl.ir.dense import dense
from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.expr import as_expr
from patterndsl.ir.normal import TOKENS, terms
from tests.conformance.test_patterns import GRIDS, HIERARCHIES, TOKEN_PATTERNS
from tests.oracles import positions

COMPOSED = [
    "causal & (local(6) + strided(3) + sinks(2))",
    "(local(6) + strided(3)) & (self + full)",
    "(local(9) + self) - (strided(2) + self)",
    "(local(3) + self) | sinks(4)",
    "local(5) ^ strided(4) ^ global([0])",
    "~(local(5) + causal)",
    "causal & (local(9) | hierarchical(factor=2, leaf=4))",
    "causal & (hierarchical(factor=4) + tree(3) + local(5))",
    "hierarchical(factor=3) - local(left=2, right=30)",
    "local(left=20, right=5) & hierarchical(factor=2)",
    "transpose(local(left=5, right=1) + columns([0]))",
    "shift(local(3) + causal, 4)",
    "blocks(shift(local(2), -3) & causal, 4)",
    "columns([0]) & random(3, block=4, seed=2) | shift(butterfly(2), 1)",
]


@pytest.mark.parametrize("text", COMPOSED + [row[0] for row in TOKEN_PATTERNS + GRIDS + HIERARCHIES])
def test_normal_form(text):
    spec = pd.parse(text)
    shapes = [(20, 20), (33, 7), (5, 12)]
    for _, _, args in [row for row in GRIDS if row[0] == text]:
        shapes = [(int(np.prod(args["shape"])), 10)]
    for n, n_q in shapes:
        try:
            node = spec.bind(n)
        except pd.SpecError:  # a token out of range at this length
            assert "[" in text
            continue
        q = positions(n, n_q)
        expected = {pool: counts for pool, counts in dense(node, q, n).items() if counts.any()}
        found = {}
        for pool, term in terms(node, as_expr(n)).items():
            slots = pool.chunks(n)
            env = {"q": q[:, None], "k" if pool is TOKENS else "c": np.arange(slots)[None, :]}
            keep = np.broadcast_to(evaluate(term.keep, env), (n_q, slots))
            counts = np.broadcast_to(evaluate(term.amount, env), (n_q, slots))
            np.testing.assert_array_equal(keep, counts > 0, err_msg=f"{pool}, n={n}, n_q={n_q}")
            if keep.any():
                found[pool] = counts
        assert found.keys() == expected.keys()
        for pool, counts in found.items():
            np.testing.assert_array_equal(counts, expected[pool], err_msg=f"{pool}, n={n}, n_q={n_q}")
