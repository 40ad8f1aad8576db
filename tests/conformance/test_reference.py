"""The reference against attention written out in NumPy float64, over slots from the independent oracles."""

import jax
import numpy as np
import pytest

import patterndsl as pd
from tests.oracles import oracle, positions, published, slots

HEADS, KV_HEADS, DIM, VALUE_DIM = 4, 2, 8, 5
POOL = {
    "mean": lambda x: x.mean(axis=0),
    "max": lambda x: x.max(axis=0),
    "first": lambda x: x[0],
    "last": lambda x: x[-1],
}


def operands(n, n_q, seed=0):
    draw = np.random.default_rng(seed)
    return (
        draw.normal(size=(2, n_q, HEADS, DIM)).astype(np.float32),
        draw.normal(size=(2, n, KV_HEADS, DIM)).astype(np.float32),
        draw.normal(size=(2, n, KV_HEADS, VALUE_DIM)).astype(np.float32),
    )


def attend(counts, table, q, k, v, *, reduce="mean", weighted=True, scale=None, softcap=None, sinks=None):
    """Output and log-sum-exp, one query at a time. ``counts`` [n_q, slots] or one such matrix per head;
    ``reduce`` a name, or what makes the vector of (all tokens, level, start, stop)."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    out, lse = np.zeros((*q.shape[:3], v.shape[-1])), np.full(q.shape[:3], -np.inf)
    for b, t, head in np.ndindex(*q.shape[:3]):
        row = counts[head][t] if isinstance(counts, list) else counts[t]
        logits, values = [], []
        for count, (level, start, stop) in zip(row, table, strict=True):
            if not count:
                continue
            tokens = (x[b, :, head // (HEADS // KV_HEADS)] for x in (k, v))
            if callable(reduce):
                key, value = (reduce(x, level, start, stop) for x in tokens)
            else:
                key, value = (POOL[reduce](x[start:stop]) for x in tokens)
            logit = scale * (q[b, t, head] @ key)
            logit = softcap * np.tanh(logit / softcap) if softcap else logit
            logits.append(logit + np.log(count) + (np.log(stop - start) if level and weighted else 0))
            values.append(value)
        if sinks is not None:
            logits.append(sinks[head])
            values.append(np.zeros(v.shape[-1]))
        if logits:
            top = max(logits)
            weights = np.exp(np.array(logits) - top)
            out[b, t, head] = weights @ np.array(values) / weights.sum()
            lse[b, t, head] = top + np.log(weights.sum())
    return out, lse


def token_table(n):
    return [(0, token, token + 1) for token in range(n)]


def reference(spec, q, k, v, **arguments):
    """One compilation instead of one per operation."""
    return jax.jit(lambda q, k, v: pd.reference(spec, q, k, v, **arguments))(q, k, v)


def check(spec, counts, table, n, n_q, *, given=None, **arguments):
    q, k, v = operands(n, n_q)
    out, lse = reference(spec, q, k, v, return_lse=True, **(given or {}))
    expected, expected_lse = attend(counts, table, q, k, v, **arguments)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_allclose(lse, expected_lse, atol=4e-6)


@pytest.mark.parametrize("n, n_q", [(1, 1), (17, 17), (17, 5), (9, 14)])
def test_masks_and_empty_rows(n, n_q):
    mask = oracle("causal")(positions(n, n_q), n) & oracle("local")(positions(n, n_q), n, w=4)
    check("causal & local(4)", mask, token_table(n), n, n_q)
    mask = oracle("segments")(positions(n, n_q), n, size=6, dilation=3)
    check("segments(6, 3)", mask, token_table(n), n, n_q)


def test_counts_weigh_in_the_softmax():
    counts = published("longnet")(positions(20), 20, sizes=(5, 10), dilations=(1, 2))
    check("causal & (segments(5, 1) + segments(10, 2))", counts, token_table(20), 20, 20)


@pytest.mark.parametrize(
    "reduce, weight",
    [("mean", "count"), ("mean", "one"), ("max", "count"), ("first", "one"), ("last", "count")],
)
def test_summaries(reduce, weight):
    n, n_q = 19, 13
    counts, table = slots(positions(n, n_q), n, factor=2, causal=True)
    spec = f'causal & hierarchical(factor=2, reduce="{reduce}", weight="{weight}")'
    check(spec, counts, table, n, n_q, reduce=reduce, weighted=weight == "count")


def test_summaries_beside_tokens():
    counts, table = slots(positions(23), 23, factor=3)
    counts[:, :23] |= oracle("local")(positions(23), 23, w=8)
    check("local(8) | hierarchical(factor=3)", counts, table, 23, 23)


def test_scale_softcap_and_sinks():
    mask = oracle("causal")(positions(11), 11)
    sinks = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
    for arguments in ({"sinks": sinks}, {"scale": 2.0, "softcap": 1.5}):
        check("causal", mask, token_table(11), 11, 11, given=arguments, **arguments)


def test_a_row_without_keys_is_zero_beside_a_sink():
    q, k, v = operands(7, 7)
    out, lse = reference("none", q, k, v, sinks=np.ones(HEADS, np.float32), return_lse=True)
    assert not np.any(out) and np.all(np.isneginf(lse))


def test_heads_have_their_own_patterns():
    masks = [oracle("local")(positions(12), 12, w=w) for w in (2, 2, 5, 12)]
    check("heads { 0:2 => local(2); 2 => local(5); _ => full }", masks, token_table(12), 12, 12)


def test_lengths_and_offset():
    n, n_q, lengths = 10, 4, np.array([10, 6], np.int32)
    q, k, v = operands(n, n_q)
    out, lse = reference("causal", q, k, v, kv_lengths=lengths, q_offset=3, return_lse=True)
    for b in range(2):
        mask = oracle("causal")(np.arange(3, 7), n) & (np.arange(n) < lengths[b])
        expected, expected_lse = attend(mask, token_table(n), q[b : b + 1], k[b : b + 1], v[b : b + 1])
        np.testing.assert_allclose(out[b : b + 1], expected, atol=2e-6)
        np.testing.assert_allclose(lse[b : b + 1], expected_lse, atol=4e-6)


def test_alibi_and_bias():
    n, slopes = 9, np.array([0.5, 0.25, 1.0, 0.0], np.float32)
    q, k, v = operands(n, n)
    bias = np.random.default_rng(1).normal(size=(2, HEADS, n, n)).astype(np.float32)
    out = reference("local(4)", q, k, v, alibi_slopes=slopes, bias=bias)
    q64, k64, v64 = (x.astype(np.float64) for x in (q, k, v))
    for b, head in np.ndindex(2, HEADS):
        group = head // (HEADS // KV_HEADS)
        distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        logits = q64[b, :, head] @ k64[b, :, group].T / np.sqrt(DIM) - slopes[head] * distance + bias[b, head]
        weights = np.exp(np.where(oracle("local")(positions(n), n, w=4), logits, -np.inf))
        expected = weights @ v64[b, :, group] / weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(out[b, :, head], expected, atol=2e-6)
