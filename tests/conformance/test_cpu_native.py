"""The native kernel on the hand-made plans that the XLA executor is held to."""

from __future__ import annotations

import jax
import pytest

import patterndsl as pd
from patterndsl.backends import Target
from patterndsl.backends.cpu_native import BACKEND, build, bytecode
from patterndsl.ir.expr import Expr, K, Q
from patterndsl.ir.normal import TOKENS, Term
from tests.conformance import test_xla_executor as executor
from tests.plan.handmade import make_plan


@pytest.fixture(autouse=True)
def _native(kernel, monkeypatch):
    monkeypatch.setattr(executor, "BACKEND", BACKEND)


test_every_structure = executor.test_every_structure
test_all_arguments_at_once = executor.test_all_arguments_at_once
test_each_argument = executor.test_each_argument
test_broadcast_bias = executor.test_broadcast_bias
test_summaries = executor.test_summaries
test_lengths_that_differ = executor.test_lengths_that_differ
test_position_of_the_first_query_known_at_run_time = (
    executor.test_position_of_the_first_query_known_at_run_time
)
test_key_lengths = executor.test_key_lengths
test_what_lies_beyond = executor.test_what_lies_beyond_the_key_lengths_may_be_anything
test_inputs = executor.test_inputs
test_groups_of_heads = executor.test_groups_of_heads
test_branches_are_normalised_apart = executor.test_branches_are_normalised_apart
test_transformations = executor.test_transformations
test_vmap_over_keys_alone = executor.test_vmap_over_keys_alone
test_gradients_are_the_same_every_time = executor.test_gradients_are_the_same_every_time


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 16])
def test_other_vectors(width, tmp_path, monkeypatch):
    """The source with other vectors than this processor's: those of processors that are not at hand."""
    path = build.build(tmp_path / f"width{width}.so", (f"-DPATTERNDSL_WIDTH={width}", "-Wno-psabi"))
    monkeypatch.setattr(build, "library", lambda: path)
    for pattern in ("pyramid", "sum", "gaps"):
        executor.test_all_arguments_at_once(pattern, "padded")


def one_key(keep: Expr = K <= Q):
    return make_plan({(0,): [[(TOKENS, Term(keep))]]}, 8)


def target(platform="cpu", dtype="float32"):
    return Target(platform, dtype, 1, 1, 1, 8, 8)


def test_what_is_refused(monkeypatch):
    assert BACKEND.supports(one_key(), target()) is None
    assert "float16" in BACKEND.supports(one_key(), target(dtype="float16")).reason
    assert "tpu" in BACKEND.supports(one_key(), target(platform="tpu")).reason
    monkeypatch.setattr(bytecode, "MOST_REGISTERS", 1)
    refused = BACKEND.supports(one_key((K <= Q) | (K * Q).eq(6)), target())
    assert "registers" in refused.reason and "xla" in refused.advice
    with pytest.raises(ValueError, match="registers"):
        BACKEND.lower(one_key((K <= Q) | (K * Q).eq(6)), target())


def test_auto_takes_it_where_it_is_built(tmp_path, monkeypatch):
    plan, q = one_key(), jax.numpy.ones((1, 8, 1, 8))
    auto, named = pd.compile("causal"), pd.compile("causal", backend="cpu_native")
    assert auto.pick(plan, target()).name == "cpu_native"
    assert auto.pick(plan, target(dtype="float16")).name == "xla"
    monkeypatch.setenv("PATTERNDSL_CACHE", str(tmp_path / "empty"))
    assert auto.pick(plan, target()).name == "xla"
    with pytest.raises(pd.SpecError, match="not been built") as error:
        named(q, q, q)
    assert build.COMMAND in str(error.value)


def test_a_compiler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.build(tmp_path / "kernel.so")
    assert not (tmp_path / "kernel.so").exists()
