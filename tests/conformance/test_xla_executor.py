"""The XLA executor on hand-made plans, forward and backward, against dense attention in plain jnp."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl.backends import Operands, Target, Unsupported
from patterndsl.backends.xla import BACKEND
from patterndsl.backends.xla.order import Order
from patterndsl.ir.expr import TRUE, C, K, Q, read
from patterndsl.ir.nodes import Pool
from patterndsl.ir.normal import TOKENS, Term
from patterndsl.plan.build import build_plan
from tests.conformance import dense_softmax
from tests.conformance.structures import CAUSAL, PATTERNS, STYLES, N, pyramid, weighted
from tests.plan.handmade import Style, make_plan

SLOW = pytest.mark.slow
EXHAUSTIVE = pytest.mark.exhaustive


def operands(
    seed=0, batch=2, n=N, n_q=None, heads=4, kv_heads=2, head_dim=8, v_head_dim=None, dtype=np.float32
):
    rng = np.random.default_rng(seed)
    n_q = n if n_q is None else n_q
    shapes = (
        (batch, n_q, heads, head_dim),
        (batch, n, kv_heads, head_dim),
        (batch, n, kv_heads, v_head_dim or head_dim),
    )
    return tuple(jnp.asarray(rng.normal(size=s).astype(dtype)) for s in shapes)


_EXPECTED = {}


def lowered(plan, q, k, v):
    target = Target("cpu", q.dtype.name, q.shape[0], q.shape[2], k.shape[2], q.shape[3], v.shape[3])
    return BACKEND.lower(plan, target)


def compare(heads, plan, q, k, v, *, tolerance=2e-5, key=None, **options):
    """Hold outputs, log-sum-exps and the gradients of all floating operands to the dense reference.

    ``key``: names the case, where several plans share one reference.
    """
    floats = {"q": q, "k": k, "v": v, **{x: options.pop(x) for x in ("bias", "alibi_slopes") if x in options}}
    scale = q.shape[-1] ** -0.5
    offsets = options.pop("offsets", [k.shape[1] - q.shape[1]])
    kernel = lowered(plan, q, k, v)

    def ours(floats, offset, others):
        return kernel(Operands(scale=scale, q_offset=offset, **floats, **others, **options))

    def theirs(floats, offset, others):
        floats = {name: x.astype(jnp.promote_types(x.dtype, jnp.float32)) for name, x in floats.items()}
        return dense_softmax.attention(heads, **floats, scale=scale, q_offset=offset, **others, **options)

    def loss(f, floats, offset, others):
        results = f(floats, offset, others)
        total = 0.0
        for i, (out, lse) in enumerate(results):
            weight = jnp.cos(jnp.arange(out.size, dtype=out.dtype).reshape(out.shape) * (i + 1))
            reached = jnp.where(lse == -jnp.inf, 0.0, lse)
            total = total + jnp.sum(out * weight) + jnp.sum(jnp.sin(reached) * weight[..., 0])
        return total, results

    @functools.partial(jax.jit, static_argnums=0)
    def both(f, floats, offset, others):
        return jax.value_and_grad(functools.partial(loss, f), has_aux=True)(floats, offset, others)

    others = {name: options.pop(name) for name in ("inputs", "kv_lengths") if name in options}
    for offset in offsets:
        got = both(ours, floats, offset, others)
        if key is None or key not in _EXPECTED:
            _EXPECTED[key] = both(theirs, floats, offset, others)
        _close(q.dtype, got, _EXPECTED[key], floats, tolerance)
    return got[0][1], got[1]


def _close(dtype, got, expected, floats, tolerance):
    (_, results), grads = got
    (_, expected_results), expected_grads = expected
    dtype = jnp.promote_types(dtype, jnp.float32)
    assert len(results) == len(expected_results)
    for (out, lse), (expected_out, expected_lse) in zip(results, expected_results, strict=True):
        assert out.dtype == lse.dtype == dtype
        np.testing.assert_allclose(out, expected_out, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(lse, expected_lse, rtol=tolerance, atol=tolerance)
    for name, expected_grad in expected_grads.items():
        grad = np.asarray(grads[name].astype(dtype))
        assert grad.shape == floats[name].shape and np.isfinite(grad).all(), name
        size = max(1.0, float(jnp.abs(expected_grad).max()))
        np.testing.assert_allclose(grad, expected_grad, rtol=tolerance, atol=tolerance * size, err_msg=name)


def pairs():
    """Each pattern and each style with one of the others, with a few in the long run, and with all in the
    exhaustive one."""
    for i, pattern in enumerate(PATTERNS):
        for j, style in enumerate(STYLES):
            quick = pattern == "window and global" or (style == "loop over runs" and i % 2)
            often = (i + j) % 4 == 0 or style == "loop over runs"
            yield pytest.param(pattern, style, marks=() if quick else SLOW if often else EXHAUSTIVE)


@pytest.mark.parametrize("pattern,style", [*pairs()])
def test_every_structure(pattern, style):
    heads = {(0, 1): [PATTERNS[pattern](N)]}
    compare(heads, make_plan(heads, N, style=STYLES[style]), *operands(heads=2, kv_heads=1), key=pattern)


def everything(n=N, n_q=None, batch=2, heads=4, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "softcap": 3.0,
        "alibi_slopes": jnp.asarray(rng.uniform(0.01, 0.2, heads), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=(batch, heads, n if n_q is None else n_q, n)), jnp.float32),
        "kv_lengths": jnp.asarray(rng.integers(n // 3, n, batch), jnp.int32),
    }


@pytest.mark.parametrize(
    "pattern,style",
    [
        ("pyramid", "parts of loops"),
        pytest.param("sum", "padded", marks=SLOW),
        pytest.param("pyramid", "parts in any order", marks=SLOW),
        pytest.param("sum", "any order", marks=SLOW),
        pytest.param("pyramid", "padded runs", marks=SLOW),
        pytest.param("gaps", "padded runs", marks=SLOW),
        pytest.param("sum", "loop", marks=SLOW),
    ],
)
def test_all_arguments_at_once(pattern, style):
    heads = {(0, 1, 2, 3): [PATTERNS[pattern](N)]}
    compare(
        heads,
        make_plan(heads, N, style=STYLES[style]),
        *operands(v_head_dim=5),
        key=(pattern, "all"),
        **everything(),
    )


@SLOW
@pytest.mark.parametrize("name", ["softcap", "alibi_slopes", "bias", "kv_lengths"])
def test_each_argument(name):
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](N)]}
    compare(heads, make_plan(heads, N, style=STYLES["padded"]), *operands(), **{name: everything()[name]})


@pytest.mark.parametrize(
    "shape,style",
    [
        ((2, 1), "padded runs"),
        pytest.param((1, 4), "padded", marks=SLOW),
        pytest.param((1, 1), "loop", marks=SLOW),
        pytest.param((2, 1), "any order", marks=SLOW),
    ],
)
def test_broadcast_bias(shape, style):
    bias = jnp.asarray(np.random.default_rng(0).normal(size=(*shape, N, N)), jnp.float32)
    bias = bias.at[:, :, 5:9].set(-jnp.inf)  # rows that the bias leaves without keys
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](N)]}
    lengths = jnp.asarray([N, 29])  # where they differ, so do the means of a bias that sequences share
    plan = make_plan(heads, N, style=STYLES[style])
    got, _ = compare(heads, plan, *operands(), bias=bias, kv_lengths=lengths)
    assert bool((got[0][1][:, 5:9] == -jnp.inf).all()) and bool((got[0][0][:, 5:9] == 0).all())


@pytest.mark.parametrize(
    "reduce", [*(pytest.param(r, marks=SLOW) for r in ("mean", "first", "last")), "max", weighted]
)
@pytest.mark.parametrize(
    "weight,lengths",
    [("count", (30, 0)), pytest.param("one", None, marks=SLOW), pytest.param("one", (N, 1), marks=SLOW)],
)
def test_summaries(reduce, weight, lengths):
    heads = {
        (0, 1): [
            [*pyramid(N, reduce=reduce, weight=weight), (Pool(6, 3, reduce, weight, 3), Term(C * 3 <= Q))]
        ]
    }
    options = {} if lengths is None else {"kv_lengths": jnp.asarray(lengths, jnp.int32)}
    slopes = jnp.asarray([0.1, 0.3])
    compare(
        heads,
        make_plan(heads, N, style=STYLES["padded"]),
        *operands(heads=2, kv_heads=1),
        alibi_slopes=slopes,
        **options,
    )


@pytest.mark.parametrize(
    "n,n_q,style",
    [
        (N, 5, "loop"),
        (1, 1, "runs"),
        pytest.param(20, N, "gathered", marks=SLOW),
        pytest.param(20, N, "parts in any order", marks=SLOW),
        pytest.param(N, 5, "any order", marks=SLOW),
        pytest.param(N, 5, "runs", marks=SLOW),
        pytest.param(20, N, "loop", marks=SLOW),
        pytest.param(32, 16, "runs", marks=SLOW),
    ],
)
def test_lengths_that_differ(n, n_q, style):
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](n)]}
    plan = make_plan(heads, n, n_q, style=STYLES[style])
    compare(heads, plan, *operands(n=n, n_q=n_q), **everything(n=n, n_q=n_q))


@pytest.mark.parametrize("shuffled", [(), pytest.param(("queries", "tokens"), marks=SLOW)])
def test_position_of_the_first_query_known_at_run_time(shuffled):
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](N)]}
    plan = make_plan(heads, N, 20, q_offset=None, style=Style(step=4, contiguous=True, shuffled=shuffled))
    offsets = jnp.asarray([0, 11, 38, -3, 200][: 2 if shuffled else 5], jnp.int32)
    compare(heads, plan, *operands(n_q=20), offsets=offsets, **everything(n_q=20))


@pytest.mark.parametrize(
    "kv_lengths,style",
    [
        ((0, 20), "runs"),
        ((N - 1, 1), "parts"),
        pytest.param((N, N), "loop", marks=SLOW),
        pytest.param((20, 0), "any order", marks=SLOW),
    ],
)
def test_key_lengths(kv_lengths, style):
    heads = {(0, 1, 2, 3): [PATTERNS["window and global"](N)]}
    lengths = jnp.asarray(kv_lengths, jnp.int32)
    got, grads = compare(heads, make_plan(heads, N, style=STYLES[style]), *operands(), kv_lengths=lengths)
    for b, length in enumerate(kv_lengths):
        assert not np.asarray(grads["k"][b, length:]).any() and not np.asarray(grads["v"][b, length:]).any()
        if length == 0:
            assert not np.asarray(got[0][0][b]).any() and bool((got[0][1][b] == -jnp.inf).all())


def test_what_lies_beyond_the_key_lengths_may_be_anything():
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](N)]}
    q, k, v = operands()
    beyond = jnp.arange(N)[:, None, None] >= 30
    lengths = jnp.asarray([30, 30], jnp.int32)
    plan = make_plan(heads, N, style=STYLES["padded"])
    kernel = lowered(plan, q, k, v)

    @jax.jit
    def both(q, k, v):
        def f(q, k, v):
            return kernel(Operands(q, k, v, 0.3, 0, kv_lengths=lengths))[0][0].sum()

        return jax.value_and_grad(f, (0, 1, 2))(q, k, v)

    clean, spoilt = both(q, k, v), both(q, *(jnp.where(beyond, jnp.nan, x) for x in (k, v)))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(spoilt), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "batch,style",
    [(2, "loop"), pytest.param(1, "gathered", marks=SLOW), pytest.param(2, "parts in any order", marks=SLOW)],
)
def test_inputs(batch, style):
    doc = jnp.asarray(np.random.default_rng(0).integers(0, 4, (batch, N)).cumsum(1) // 20, jnp.int32)
    keep = CAUSAL & read("doc", Q).eq(read("doc", K))
    heads = {
        (0, 1, 2, 3): [
            [(TOKENS, Term(keep)), (Pool(4, 4), Term((C * 4 + 3 <= Q) & (read("doc", C * 4) > 0)))]
        ]
    }
    plan = make_plan(heads, N, style=STYLES[style], inputs=("doc",))
    compare(heads, plan, *operands(), inputs={"doc": doc})


@pytest.mark.parametrize(
    "groups,num_heads,kv_heads",
    [
        pytest.param([(0, 1, 2, 3), (4, 5, 6, 7)], 8, 2, marks=SLOW),  # whole groups of heads
        pytest.param([(0, 1), (2, 3), (4, 5, 6, 7)], 8, 2, marks=SLOW),  # half of a group
        pytest.param([(0, 2, 4, 6), (1, 3, 5, 7)], 8, 2, marks=SLOW),  # every other head
        pytest.param(
            [(0, 1, 2, 4), (3, 5, 6, 7)], 8, 2, marks=SLOW
        ),  # uneven: key heads are read per query head
        pytest.param([(3,), (0, 1, 2)], 4, 4, marks=SLOW),
        ([(0, 1, 2)], 3, 1),
    ],
)
def test_groups_of_heads(groups, num_heads, kv_heads):
    names = ["pyramid", "gaps", "strided"]
    heads = {g: [PATTERNS[names[i]](N)] for i, g in enumerate(groups)}
    options = everything(heads=num_heads)
    compare(
        heads,
        make_plan(heads, N, style=STYLES["padded"]),
        *operands(heads=num_heads, kv_heads=kv_heads),
        **options,
    )


@SLOW
def test_branches_are_normalised_apart():
    heads = {(0, 1): [pyramid(N), PATTERNS["gaps"](N)], (2, 3): [PATTERNS["none"](N), PATTERNS["strided"](N)]}
    got, _ = compare(heads, make_plan(heads, N, style=STYLES["padded"]), *operands(), **everything())
    assert len(got) == 2


@pytest.mark.parametrize(
    "dtype,tolerance", [(jnp.bfloat16, 4e-2), pytest.param(jnp.float16, 6e-3, marks=SLOW)]
)
@pytest.mark.parametrize("style", ["loop"])
def test_half_precision(dtype, tolerance, style):
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](N)]}
    q, k, v = (x.astype(dtype) for x in operands())
    _, grads = compare(heads, make_plan(heads, N, style=STYLES[style]), q, k, v, tolerance=tolerance)
    assert all(g.dtype == dtype for g in grads.values())


def test_double_precision():
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](N)]}
    with jax.enable_x64(True):
        q, k, v = operands(dtype=np.float64)
        options = everything()
        options["bias"] = options["bias"].astype(jnp.float64)
        options["alibi_slopes"] = options["alibi_slopes"].astype(jnp.float64)
        compare(heads, make_plan(heads, N, style=STYLES["loop"]), q, k, v, tolerance=1e-11, **options)


def example(style="loop", n=40):
    heads = {(0, 1, 2, 3): [PATTERNS["pyramid"](n)]}
    q, k, v = operands(n=n)
    kernel = lowered(make_plan(heads, n, q_offset=None, style=STYLES[style]), q, k, v)
    options = everything(n=n)

    def attend(q, k, v, bias, slopes, lengths, offset):
        return kernel(
            Operands(q, k, v, 0.3, offset, softcap=2.0, bias=bias, alibi_slopes=slopes, kv_lengths=lengths)
        )[0][0]

    return attend, (q, k, v, options["bias"], options["alibi_slopes"], options["kv_lengths"], jnp.int32(0))


@SLOW
def test_transformations():
    """grad, vmap, vmap of grad, checkpoint, scan and jit, with integers that are traced."""
    attend, (*floats, lengths, offset) = example()

    def loss(floats, lengths, offset):
        return jnp.sum(jnp.sin(attend(*floats, lengths, offset)))

    plain = jax.grad(loss)(floats, lengths, offset)

    def at(xs, i):
        return jax.tree.map(lambda x: x[i], xs)

    stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x, x - 1]), floats)
    all_lengths, offsets = (
        jnp.stack([lengths, lengths - 2, lengths + 1]),
        jnp.stack([offset, offset + 3, offset - 3]),
    )
    batched = jax.vmap(jax.grad(loss))(stacked, all_lengths, offsets)
    looped = [jax.grad(loss)(at(stacked, i), all_lengths[i], offsets[i]) for i in range(3)]
    _, scanned = jax.lax.scan(lambda c, x: (c, jax.grad(loss)(*x)), 0, (stacked, all_lengths, offsets))
    through = jax.grad(
        lambda s: jnp.sum(jax.lax.map(lambda x: jax.checkpoint(loss)(*x), (s, all_lengths, offsets)))
    )(stacked)
    outs = jax.vmap(attend)(*stacked, all_lengths, offsets)
    for i in range(3):
        one = attend(*at(stacked, i), all_lengths[i], offsets[i])
        np.testing.assert_allclose(outs[i], one, rtol=1e-5, atol=1e-5)
        for found in (batched, scanned, through):
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(looped[i]), strict=True):
                np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(looped[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_vmap_over_keys_alone():
    attend, (q, k, *rest) = example("gathered")
    outs = jax.vmap(lambda k: attend(q, k, *rest))(jnp.stack([k, -k]))
    np.testing.assert_allclose(outs[1], attend(q, -k, *rest), rtol=1e-5, atol=1e-6)


def test_gradients_are_the_same_every_time():
    attend, (*floats, lengths, offset) = example("gathered")
    grad = jax.jit(jax.grad(lambda f: jnp.sum(attend(*f, lengths, offset) ** 2)))
    for a, b in zip(jax.tree.leaves(grad(floats)), jax.tree.leaves(grad(floats)), strict=True):
        assert bool((a == b).all())


def test_memory_is_linear_in_the_length():
    """Four times the length takes about four times the temporary memory, forward and backward."""
    spec = pd.parse("causal & (local(64) | global(tokens=[0]) | hierarchical(factor=4))")

    def temporary(n):
        sizes = {"n": n, "n_q": n, "q_offset": 0, "num_heads": 1, "block_sizes": (128, 128)}
        q, k, v = operands(n=n, heads=1, kv_heads=1, batch=1)
        kernel = lowered(build_plan([((0,), spec.bind(n))], **sizes), q, k, v)
        grad = jax.grad(lambda q, k, v: jnp.sum(kernel(Operands(q, k, v, 0.3, 0))[0][0]), (0, 1, 2))
        return jax.jit(grad).lower(q, k, v).compile().memory_analysis().temp_size_in_bytes

    assert temporary(16384) / temporary(4096) < 5


def test_an_order_is_gathered_both_ways():
    """The gradient of a gather by a permutation is a gather too; empty places get and give nothing."""
    index = np.array([3, -1, 0, 2, -1, 1], np.int32)
    order = Order(index, 5)  # element 4 has no place
    x = jnp.arange(1.0, 11.0).reshape(5, 2)
    np.testing.assert_array_equal(order.take(x, 0)[:, 0], [7, 0, 1, 5, 0, 3])
    np.testing.assert_array_equal(order.put(order.take(x, 0), 0)[:, 0], [1, 3, 5, 7, 0])
    grad = jax.grad(lambda x: jnp.sum(order.take(x, 0) * jnp.arange(1.0, 7.0)[:, None]))
    np.testing.assert_array_equal(grad(x)[:, 0], [3, 6, 4, 1, 0])
    assert "scatter" not in str(jax.make_jaxpr(grad)(x))
    assert Order(np.array([2, 3, -1], np.int32), 5).run == (2, 2)


def test_few_queries_cost_few():
    """A part of one tile of queries computes one tile's output, wherever it lies."""
    heads = {(0,): [[(TOKENS, Term((Q >= 500) & (Q < 508)))]]}
    q, k, v = operands(n=1024, heads=1, kv_heads=1, batch=1)
    for style in (Style(), Style(shuffled=("tokens",))):
        kernel = lowered(make_plan(heads, 1024, style=style), q, k, v)
        jaxpr = str(jax.make_jaxpr(lambda q, k, v, kernel=kernel: kernel(Operands(q, k, v, 0.3, 0)))(q, k, v))
        assert "f32[2,1,1,8,8]" in jaxpr and "f32[128,1,1,8,8]" not in jaxpr  # [tiles, B, K, block_q, Hv]


def test_what_is_refused():
    target = Target("cpu", "float32", 1, 1, 1, 8, 8)
    plan = make_plan({(0,): [[(Pool(4, 4, "median"), Term(TRUE))]]}, 8)
    refused = BACKEND.supports(plan, target)
    assert isinstance(refused, Unsupported) and "median" in refused.reason
    with pytest.raises(ValueError, match="median"):
        BACKEND.lower(plan, target)
    below = Pool(4, 4)
    for pool in (Pool(6, 6, of=below, fan=2), Pool(8, 4, of=below, fan=2), Pool(8, 8, of=Pool(4, 2), fan=2)):
        refused = BACKEND.supports(make_plan({(0,): [[(pool, Term(TRUE))]]}, 16), target)
        assert isinstance(refused, Unsupported) and "not made of whole chunks" in refused.reason
    plan = make_plan({(0,): [[(TOKENS, Term(TRUE))]]}, 8)
    assert BACKEND.supports(plan, target) is None
    assert "int32" in BACKEND.supports(plan, Target("cpu", "int32", 1, 1, 1, 8, 8)).reason
