"""What the Python API refuses, and says about it: predicates that Python would decide, files for specs, and
arguments of a call that do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import patterndsl as pd
from patterndsl.diagnostics import SpecError

Q = np.zeros((6, 2, 8), np.float32)
DOC = pd.Input("doc")
PACKED = pd.causal & pd.same(DOC)


@pytest.mark.parametrize(
    "predicate",
    [
        lambda q, k: q == k,
        lambda q, k: q != k,
        lambda q, k: DOC[q] == DOC[k],
        lambda q, k: k in [0, 1],
        lambda q, k: (q == k) & (k < 3),
        lambda q, k: (k < 3) | (q == k),
    ],
)
def test_equality_of_python_is_no_predicate(predicate: Callable[[Any, Any], Any]) -> None:
    """It would be the same for every pair, without a word."""
    with pytest.raises(TypeError, match=r"write `\.eq\(\)` for =="):
        pd.where(predicate)


@pytest.mark.parametrize(
    ("predicate", "code"),
    [
        (lambda q, k: q / 2 < k, "E215"),
        (lambda q, k: pd.floor(q / 2) < k, "E215"),
        (lambda q, k: q**2 < k, "E215"),
        (lambda q, k: pd.sqrt(DOC[q]) < k, "E215"),
        (lambda q, k: k < pd.n / 2, "E301"),
    ],
)
def test_predicates_stay_within_whole_numbers(predicate: Callable[[Any, Any], Any], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        pd.where(predicate)
    assert caught.value.codes == (code,)


def test_numbers_known_before_the_positions_may_be_rounded() -> None:
    assert pd.where(lambda q, k: k < pd.ceil(pd.n / 2)).mask(5)[0].sum() == 3


@pytest.mark.parametrize(
    ("spec", "arguments", "words"),
    [
        (pd.causal, {"softcp": 30.0}, "did you mean `softcap`"),
        (pd.causal, {"scale": np.ones(2, np.float32)}, "one number is needed, not float32[2]"),
        (pd.causal, {"scale": True}, "one number is needed, not bool[]"),
        (pd.causal, {"bias": np.ones((6, 6), bool)}, "jnp.where(mask, 0.0, -jnp.inf)"),
        (PACKED, {}, "--input doc=FILE.npy"),
        (PACKED, {"doc": np.full(6, 2**40)}, "do not fit into 32 bits"),
        (PACKED, {"doc": [0.5] * 6}, "expected integers"),
        (pd.mix(pd.causal, pd.full), {"gates": np.ones((6, 2, 3))}, "needs gates [6, 2, 2], found [6, 2, 3]"),
    ],
)
def test_arguments_of_a_call_that_do_not_fit(spec: pd.Spec, arguments: dict[str, Any], words: str) -> None:
    for attention in (pd.compile(spec), lambda *x, **y: pd.reference(spec, *x, **y)):
        with pytest.raises(SpecError) as caught:
            attention(Q, Q, Q, **arguments)
        assert words in str(caught.value)


def test_inputs_may_be_lists() -> None:
    ids = [0, 0, 0, 1, 1, 1]
    x = np.random.default_rng(0).normal(size=(3, 6, 2, 8)).astype(np.float32)
    np.testing.assert_array_equal(pd.compile(PACKED)(*x, doc=ids), pd.compile(PACKED)(*x, doc=np.array(ids)))


def test_the_name_of_a_file_is_no_spec() -> None:
    with pytest.raises(SpecError, match=r"patterndsl\.load\(path\)"):
        pd.compile("specs/headline.attn")


@pytest.mark.parametrize("lengths", [(0,), (8, 0), (8, -1), (2.0,)])
def test_plans_need_lengths(lengths: tuple[Any, ...]) -> None:
    with pytest.raises(SpecError, match="a whole number of at least 1 is needed"):
        pd.compile("causal").plan(*lengths)


def test_a_misspelt_argument_of_a_pattern_names_the_pattern() -> None:
    with pytest.raises(TypeError, match=r"local\(w=None, left=None, right=None\): .*'window'"):
        pd.local(window=3)


def test_an_unknown_backend_is_refused_at_once() -> None:
    with pytest.raises(pd.SpecError, match="E502"):
        pd.compile("causal", backend="xlo")


def test_masks_too_large_to_write_out_are_refused() -> None:
    with pytest.raises(pd.SpecError, match="too many pairs for a dense mask"):
        pd.causal.mask(10**6)


def test_compiled_functions_can_be_pickled_after_use() -> None:
    attention = pd.compile("causal")
    q = np.ones((4, 1, 2), np.float32)
    out = attention(q, q, q)
    again = pickle.loads(pickle.dumps(attention))
    np.testing.assert_array_equal(again(q, q, q), out)


def test_dir_lists_the_public_names_once() -> None:
    names = dir(pd)
    assert {"compile", "causal", "global_", "SpecError"} <= set(names)
    assert not {"annotations", "importlib", "Any"} & set(names) and len(names) == len(set(names))


def test_an_input_is_of_one_kind() -> None:
    mu = pd.Input("mu")
    routed = pd.causal & pd.cluster(3, size=6, centroids=mu)
    assert routed == pd.parse("causal & cluster(3, 6, mu)") and routed.module.inputs == {"mu": "centroids"}
    assert (routed & PACKED).inputs == ("mu", "doc")
    with pytest.raises(ValueError, match="the input 'mu' differently"):
        routed | pd.where(lambda q, k: mu[q].eq(mu[k]))
    with pytest.raises(SpecError, match="of kind `token`, found an input of kind `centroids`"):
        pd.parse("cluster(3, 6, centroids=mu) & same(mu)")


def test_the_number_of_heads_is_asked_for() -> None:
    spec = pd.parse("where(q, k: k % num_heads == h)")
    with pytest.raises(SpecError, match="number of heads") as caught:
        spec.mask(4)
    assert caught.value.codes == ("E405",)
    assert spec.mask(4, head=1, num_heads=2).tolist() == [[False, True] * 2] * 4


def test_a_function_explains_its_calls() -> None:
    """By their shapes: what ran them, and why a faster one did not."""
    attention = pd.compile("causal")
    assert attention.explain().startswith("not called yet")
    attention(Q, Q, Q)
    attention(*(x.astype("float16") for x in (Q[:4], Q, Q)))
    told = attention.explain()
    assert told.index("q [1, 6, 2, 8], k [1, 6, 2, 8], v [1, 6, 2, 8], float32\nrun by ") < told.index(
        "q [1, 4, 2"
    )
    assert (
        "run by xla on cpu\n  not by cpu_native: " in told
        and "not by pallas_gpu: it runs on GPUs, not on cpu" in told
    )
