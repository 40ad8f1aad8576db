"""The cost model: what it counts grows with what is computed, and rates are found again from measurements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import patterndsl as pd
from patterndsl import cache
from patterndsl.plan import cost, rates
from patterndsl.plan.cost import TERMS, Rates, Workload, pairs_computed, plan_work, seconds
from patterndsl.plan.fit import fit
from patterndsl.plan.rates import forget_rates, rates_of

N = 2048


def price(text: str, n: int = N, blocks: tuple[int, int] = (64, 64), **workload: int) -> float:
    plan = pd.compile(text, block_sizes=blocks).plan(n, num_heads=workload.get("heads", 1))
    return seconds(plan_work(plan, Workload(**workload)), rates_of("cpu", "xla"))


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        ("causal & local(64)", "causal & local(256)"),
        ("causal & local(256)", "causal"),
        ("causal", "full"),
        ("local(64)", "local(64) | columns([1000])"),
        ("causal & local(64)", "causal & (local(64) | hierarchical(factor=4))"),
        ("causal & local(64)", "causal & (local(64) | logsparse)"),
    ],
)
def test_more_pairs_cost_more(cheap: str, dear: str) -> None:
    assert price(cheap) < price(dear)


def test_longer_wider_and_more_heads_cost_more() -> None:
    text = "causal & local(128)"
    assert price(text) < price(text, n=2 * N)
    assert price(text) < price(text, heads=4, kv_heads=4)
    assert price(text, heads=4, kv_heads=1) < price(text, heads=4, kv_heads=4)
    assert price(text, head_dim=32) < price(text, head_dim=128)
    assert price(text, batch=1) < price(text, batch=2)


def test_work_is_counted_from_the_tables() -> None:
    plan = pd.compile("causal & local(128)", block_sizes=(64, 64)).plan(N)
    work = plan_work(plan, Workload(head_dim=8, v_head_dim=4))
    computed = plan.stats().computed
    assert pairs_computed(work) == computed
    assert work["product"] + work["masked product"] == 12 * computed
    assert work["row"] == N / 64 and 0 < work["masked exponential"] < computed
    assert work["gather"] == work["slot"] == work["merge"] == work["reorder"] == 0


def test_predicates_cost_what_depends_on_both_positions() -> None:
    def operations(text: str) -> float:
        plan = pd.compile(text, block_sizes=(64, 64)).plan(256)
        return cost.operations_of(plan.groups[0].branches[0].parts[0].sources[0].term)

    assert operations("where(q, k: q <= k)") == 1
    assert operations("where(q, k: q // 3 * 5 + 7 <= k // 9)") == operations("where(q, k: q <= k)")
    assert operations("where(q, k: (q + k) % 7 <= 2)") > operations("where(q, k: q + k <= 2)")
    assert operations("random(3, block=16)") > operations("random(1, block=16)") > 2


def test_a_fit_finds_the_rates_again() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 2, len(TERMS)) * 1e-9
    works = [dict(zip(TERMS, rng.uniform(0, 1, len(TERMS)) ** 4 * 1e6, strict=True)) for _ in range(60)]
    measured = [seconds(w, Rates(tuple(true), "")) for w in works]
    found = fit(works, measured, [1e-9] * len(TERMS))
    np.testing.assert_allclose(found, true, rtol=0.05)


def test_rates_are_not_negative_and_stay_where_nothing_was_measured() -> None:
    works = [dict.fromkeys(TERMS, 0.0) | {"product": float(x), "row": 10.0 - x} for x in range(1, 9)]
    measured = [1e-6 * x for x in range(1, 9)]
    found = dict(zip(TERMS, fit(works, measured, [1e-7] * len(TERMS)), strict=True))
    assert found["row"] < 1e-8 and abs(found["product"] - 1e-6) < 1e-7 and min(found.values()) >= 0
    assert abs(found["merge"] - 1e-7) < 1e-12


# -- rates: where they come from -------------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(rates.VARIABLE, raising=False)
    forget_rates()
    return tmp_path


def _file(path: Path, value: float, platform: str = "cpu", kind: str = rates.KIND) -> Path:
    entry = {"origin": path.name, "rates": dict.fromkeys(TERMS, value)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"kind": kind, "devices": {platform: {"xla": entry}}}))
    return path


def test_the_user_goes_before_the_machine_and_the_machine_before_what_is_shipped(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = rates_of("cpu", "xla")
    assert "measured" in shipped.origin and rates_of("cpu", "another") == shipped
    _file(empty_cache / "cache" / "rates.json", 2e-9)
    forget_rates()
    assert rates_of("cpu", "xla").seconds == (2e-9,) * len(TERMS)
    monkeypatch.setenv(rates.VARIABLE, str(_file(empty_cache / "mine.json", 3e-9)))
    assert rates_of("cpu", "xla") == Rates((3e-9,) * len(TERMS), "mine.json")


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_what_was_not_measured_says_so(empty_cache: Path, platform: str) -> None:
    assert "not measured" in rates_of(platform, "xla").origin
    assert rates_of(platform, "xla").seconds[0] < rates_of("cpu", "xla").seconds[0]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"kind": "something else"}',
        json.dumps({"kind": rates.KIND, "devices": {"cpu": {"xla": {"origin": "", "rates": {}}}}}),
        json.dumps(
            {
                "kind": rates.KIND,
                "devices": {"cpu": {"xla": {"origin": "", "rates": dict.fromkeys(TERMS, -1.0)}}},
            }
        ),
        json.dumps({"kind": rates.KIND, "devices": {"cpu": 3}}),
    ],
)
def test_damaged_rates_are_ignored_with_a_warning(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    shipped = rates_of("cpu", "xla")
    path = empty_cache / "mine.json"
    path.write_text(text)
    monkeypatch.setenv(rates.VARIABLE, str(path))
    with pytest.warns(RuntimeWarning, match="ignores"):
        assert rates_of("cpu", "xla") == shipped


def test_a_file_that_is_not_there_is_ignored_with_a_warning(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(rates.VARIABLE, str(empty_cache / "none.json"))
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        rates_of("cpu", "xla")
