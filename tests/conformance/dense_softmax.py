"""Dense attention over tokens and summaries in plain jnp, for the executors' tests: no tiles, no tables."""

import jax.numpy as jnp
import numpy as np

from patterndsl.ir.evaluate import evaluate
from patterndsl.ir.normal import TOKENS, slot_index


def membership(pool, n, lengths):
    """Bool [B, chunks, n]: the real tokens of each chunk."""
    chunks = pool.chunks(n)
    first = np.arange(chunks)[:, None] * pool.stride
    token = np.arange(n)[None, :]
    inside = (token >= first) & (token < first + pool.size)
    return jnp.asarray(inside)[None] & (jnp.arange(n) < jnp.asarray(lengths)[:, None])[:, None, :]


def pooled(x, pool, member):
    """[B, n, K, H] → [B, chunks, K, H], 0 for chunks without real tokens."""
    if pool is TOKENS:
        return x
    size = member.sum(-1)
    n = x.shape[1]
    if callable(pool.reduce):
        index = np.minimum(np.arange(pool.chunks(n))[:, None] * pool.stride + np.arange(pool.size), n - 1)
        past = np.arange(pool.chunks(n))[:, None] * pool.stride + np.arange(pool.size) >= n
        mask = jnp.take_along_axis(member, jnp.broadcast_to(index, (len(x), *index.shape)), axis=2) & ~past
        filled = jnp.where(mask.any(-1, keepdims=True), mask, True)
        return jnp.where((size > 0)[..., None, None], pool.reduce(x[:, index], filled), 0.0)
    if pool.reduce == "max":
        wide = jnp.where(member[..., None, None], x[:, None], -1e30).max(2)
        return jnp.where((size > 0)[..., None, None], wide, 0.0)
    token = jnp.arange(n)
    if pool.reduce == "mean":
        weight = member / jnp.maximum(size, 1)[..., None]
    elif pool.reduce == "first":
        weight = member & (token == jnp.where(member, token, n).min(-1, keepdims=True))
    else:
        weight = member & (token == jnp.where(member, token, -1).max(-1, keepdims=True))
    return jnp.einsum("bcn,bnkh->bckh", weight.astype(x.dtype), x, precision="highest")


def attention(
    heads,
    q,
    k,
    v,
    *,
    scale,
    q_offset,
    softcap=None,
    alibi_slopes=None,
    bias=None,
    kv_lengths=None,
    inputs=None,
):
    """Per branch the output [B, T, N, Hv] and log-sum-exp [B, T, N]. ``heads``: as in
    `handmade.make_plan`."""
    num_heads, per_kv = q.shape[2], q.shape[2] // k.shape[2]
    branches = max(len(b) for b in heads.values())
    results = []
    for i in range(branches):
        out, lse = [None] * num_heads, [None] * num_heads
        for group, terms in heads.items():
            for h in group:
                slope = None if alibi_slopes is None else alibi_slopes[h]
                its_bias = None if bias is None else bias[:, h if bias.shape[1] > 1 else 0]
                out[h], lse[h] = head(
                    terms[i],
                    *(q[:, :, h], k[:, :, h // per_kv], v[:, :, h // per_kv]),
                    *(scale, q_offset, softcap, slope, its_bias, kv_lengths, inputs or {}),
                )
        results.append((jnp.stack(out, 2), jnp.stack(lse, 2)))
    return results


def head(terms, q, k, v, scale, q_offset, softcap, slope, bias, kv_lengths, inputs):
    batch, n = k.shape[:2]
    lengths = jnp.full(batch, n) if kv_lengths is None else kv_lengths
    position = q_offset + jnp.arange(q.shape[1])
    logits, values = [], []
    for pool, term in terms:
        member = membership(pool, n, lengths)
        size = member.sum(-1)
        keys = pooled(k[:, :, None], pool, member)[:, :, 0]
        values.append(pooled(v[:, :, None], pool, member)[:, :, 0])
        s = scale * jnp.einsum("bqh,bch->bqc", q, keys, precision="highest")
        if softcap is not None:
            s = jnp.tanh(s / softcap) * softcap
        mean = (member * jnp.arange(n)).sum(-1) / jnp.maximum(size, 1)
        if slope is not None:
            s = s - slope * jnp.abs(position[:, None] - mean[:, None, :])
        if bias is not None:
            weight = (member / jnp.maximum(size, 1)[..., None]).astype(s.dtype)
            s = s + jnp.einsum(
                "bqn,bcn->bqc", jnp.broadcast_to(bias, (batch, *bias.shape[1:])), weight, precision="highest"
            )
        if pool.weight == "count":
            s = s + jnp.log(jnp.maximum(size, 1))[:, None, :]
        env = {"q": position[:, None], str(slot_index(pool).value): jnp.arange(pool.chunks(n))[None, :]}
        kept = jnp.asarray(evaluate(term.keep, env, inputs, jnp)) & (size > 0)[:, None, :]
        if term.count is not None:
            s = s + jnp.log(jnp.maximum(evaluate(term.count, env, inputs, jnp), 1))
        logits.append(jnp.where(kept, s, -jnp.inf))
    s, values = jnp.concatenate(logits, -1), jnp.concatenate(values, 1)
    some = (s > -jnp.inf).any(-1, keepdims=True)
    safe = jnp.where(some, s, 0.0)
    top = safe.max(-1, keepdims=True)
    p = jnp.exp(safe - top) * some
    total = p.sum(-1, keepdims=True)
    out = jnp.einsum("bqc,bch->bqh", p / jnp.where(some, total, 1.0), values, precision="highest")
    lse = jnp.where(some, top + jnp.log(jnp.where(some, total, 1.0)), -jnp.inf)
    return out, lse[..., 0]
