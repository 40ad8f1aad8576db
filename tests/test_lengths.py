"""One compiled function for many lengths: the same answers, few compilations, refusals where n matters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.diagnostics import SpecError

SPECS = [
    "causal & (local(5) | global(tokens=[0]) | hierarchical(factor=2))",
    "hierarchical(factor=3, window=1)",
    "local(4) | strided(7)",
    "causal & (local(3) + strided(4))",
    "heads { 0 => causal; _ => local(6) }",
    'causal & (select(2, 4, among=causal - chunked(4), per="block") | chunked(4)) | lsh(8)',
    "vertical_slash(9, 12, last=4)",
]


def arrays(n: int, n_q: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((2, t, h, 8), np.float32) for t, h in ((n_q, 4), (n, 2), (n, 2)))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    ("n", "n_q"),
    [(1, 1), (13, 3), *(pytest.param(*x, marks=pytest.mark.slow) for x in ((11, 11), (16, 16), (20, 1)))],
)
def test_padding_changes_nothing(spec: str, n: int, n_q: int) -> None:
    q, k, v = arrays(n, n_q)
    bucketed = pd.compile(spec).bucketed([16, 24])
    found = bucketed(q, k, v, return_lse=True)
    wanted = pd.reference(spec, q, k, v, return_lse=True)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)


def test_arguments_are_padded_with_their_operands() -> None:
    spec = pd.parse("input doc: token pattern main = causal & same(doc) & (local(9) | strided(5))")
    q, k, v = arrays(13, 13)
    rng = np.random.default_rng(1)
    given: dict[str, Any] = {
        "bias": rng.standard_normal((2, 1, 13, 13), np.float32),
        "doc": np.repeat([0, 1, 2], [4, 5, 4]),
        "sinks": rng.standard_normal(4, np.float32),
        "alibi_slopes": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        "kv_lengths": np.array([13, 9], np.int32),
        "softcap": 5.0,
    }
    found = pd.compile(spec).bucketed([32])(q, k, v, **given)
    np.testing.assert_allclose(found, pd.reference(spec, q, k, v, **given), atol=2e-5)


def test_gates_and_batchless_operands() -> None:
    spec = "mix(causal & local(3), causal)"
    q, k, v = (x[0] for x in arrays(13, 13))
    gates = np.random.default_rng(2).random((13, 4, 2), np.float32)
    found = pd.compile(spec).bucketed([16])(q, k, v, gates=gates)
    np.testing.assert_allclose(found, pd.reference(spec, q, k, v, gates=gates), atol=2e-5)


@pytest.mark.parametrize("part", [(0, 20, 20), (20, 20, 7), (20, 0, 0)])
def test_operands_that_do_not_fit_fail_as_they_do_without(part: tuple[int, int, int]) -> None:
    operands = [x[:, :n] for x, n in zip(arrays(20, 20), part, strict=True)]
    attention = pd.compile("input doc: token pattern main = causal & same(doc)")
    said = []
    for f in (attention, attention.bucketed([32])):
        with pytest.raises(SpecError) as caught:
            f(*operands, doc=np.zeros(part[1], int), return_lse=True)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_gradients() -> None:
    spec = SPECS[0]
    operands = arrays(13, 13)
    bucketed = pd.compile(spec).bucketed([16])

    def loss(f: Any) -> Any:
        return jax.grad(lambda q, k, v: (f(q, k, v) ** 2).sum(), argnums=(0, 1, 2))

    wanted = loss(lambda *x: pd.reference(spec, *x))(*operands)
    for x, y in zip(loss(bucketed)(*operands), wanted, strict=True):
        np.testing.assert_allclose(x, y, atol=5e-5)


def test_a_handful_of_compilations_for_any_length() -> None:
    compiled: list[str] = []

    def note(name: str, seconds: float, **_: Any) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    bucketed = pd.compile("causal & local(5)").bucketed([16, 32])
    lengths = [3, 17, 9, 32, 16, 25, 31, 4, 11]
    for n in (16, 32):
        bucketed(*arrays(n, n))
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        jax.jit(lambda x: x + 1)(jnp.ones(3))
        assert compiled  # compilations are noticed
        compiled.clear()
        for n in lengths:
            assert bucketed(*arrays(n, n)).shape[1] == n
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert not compiled


@pytest.mark.parametrize(
    "spec",
    ["global(tokens=[-1])", "local(ceil(sqrt(n)))", "where(q, k: k < n // 2)", "random(1, block=2)"],
)
def test_patterns_that_follow_n_are_refused(spec: str) -> None:
    bucketed = pd.compile(spec).bucketed([64])
    with pytest.raises(SpecError, match="not shown to be a part of that at 64"):
        bucketed(*arrays(20, 20))
    assert bucketed(*arrays(64, 64)).shape == (2, 64, 4, 8)


def test_padding_that_would_choose_is_refused() -> None:
    """Three queries at 5, 6 and 7, padded to four: at 8, where there is a key."""
    bucketed = pd.compile('select(1, 4, per="block")').bucketed([16])
    q, k, v = arrays(13, 3)
    with pytest.raises(SpecError, match="padding might change what is chosen"):
        bucketed(q, k, v, q_offset=5)
    with pytest.raises(SpecError, match="not shown to be a part of that at 16"):
        pd.compile("select(1, 4, among=local(n // 3))").bucketed([16])(q, k, v)
    q = arrays(13, 4)[0]
    want = pd.reference('select(1, 4, per="block")', q, k, v, q_offset=5)
    np.testing.assert_allclose(bucketed(q, k, v, q_offset=5), want, atol=2e-5)


def test_tokens_that_do_not_exist_yet_are_refused_as_ever() -> None:
    with pytest.raises(SpecError) as caught:
        pd.compile("global(tokens=[30])").bucketed([64])(*arrays(20, 20))
    assert caught.value.codes == ("E308",)


def test_buckets() -> None:
    bucketed = pd.compile("causal").bucketed()
    assert [bucketed.bucket(n) for n in (1, 256, 257, 5000)] == [256, 256, 512, 8192]
    few = pd.compile("causal").bucketed([100, 30])
    assert [few.bucket(n) for n in (1, 30, 31)] == [30, 30, 100]
    with pytest.raises(SpecError, match="largest bucket, 100"):
        few.bucket(101)
    for wrong in ([], [0], [2.5]):
        with pytest.raises(SpecError):
            pd.compile("causal").bucketed(wrong)
