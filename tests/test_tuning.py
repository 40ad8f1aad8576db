"""`autotune` and `calibrate`: what is measured is stored, found again for equal keys, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import patterndsl as pd
from patterndsl import cache, calibration, timing, tuning
from patterndsl.plan.cost import Workload
from patterndsl.plan.rates import forget_rates, rates_of
from patterndsl.plan.stats import described
from tests.native import use_kernel

SPEC = "causal & (local(9) | strided(8))"
SHAPE = (1, 96, 2, 8)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    forget_rates()
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[pd.Attention]:
    """No time is measured: of each shape's alternatives the last one is the fastest."""
    seen: list[pd.Attention] = []

    def measure(attention: pd.Attention, *arguments: object, **options: object) -> float:
        seen.append(attention)
        return 1.0 / len(seen)

    monkeypatch.setattr(timing, "measure", measure)
    return seen


def chosen(attention: pd.Attention, n: int = SHAPE[1], **workload: int) -> tuple[object, str]:
    given = {
        "heads": SHAPE[2],
        "kv_heads": SHAPE[2],
        "head_dim": SHAPE[3],
        "v_head_dim": SHAPE[3],
        **workload,
    }
    plan = attention.plan(n, num_heads=given["heads"], workload=Workload(**given))
    decision = plan.groups[0].branches[0].decision
    assert decision is not None
    return decision.chosen, decision.reason


def test_a_choice_is_measured_stored_and_used(empty_cache: Path) -> None:
    (tuned,) = pd.autotune(SPEC, [SHAPE], most=2, repeats=1)
    assert len(tuned.measured) == 2 and tuned.measured[0].seconds <= tuned.measured[1].seconds
    assert tuned.path is not None and tuned.path.is_relative_to(empty_cache)
    assert [p.name for p in tuned.path.parent.iterdir()] == [tuned.path.name], "no temporary file is left"
    assert str(tuned.path) in str(tuned) and "ms" in str(tuned)
    attention = pd.compile(SPEC)
    alternative, why = chosen(attention)
    assert "measured by autotune" in why
    assert described(alternative, attention_texts(attention)) == tuned.measured[0].what
    q, k, v = (jnp.asarray(np.random.default_rng(i).standard_normal(SHAPE), jnp.float32) for i in range(3))
    np.testing.assert_allclose(attention(q, k, v), pd.reference(SPEC, q, k, v), atol=2e-5)


def attention_texts(attention: pd.Attention) -> tuple[str, ...]:
    decision = attention.plan(SHAPE[1]).groups[0].branches[0].decision
    assert decision is not None
    return decision.members


def test_only_equal_keys_find_it(clock: list[pd.Attention], monkeypatch: pytest.MonkeyPatch) -> None:
    pd.autotune(SPEC, [SHAPE], most=4)
    best = clock[-1].given
    assert best is not None

    def found(attention: pd.Attention, n: int = SHAPE[1], **workload: int) -> bool:
        return "measured by autotune" in chosen(attention, n, **workload)[1]

    assert found(pd.compile(SPEC)) and chosen(pd.compile(SPEC))[0] == best[0][0]
    assert found(pd.compile("(strided(8) | local(9)) & causal")) == (
        str(pd.compile("(strided(8) | local(9)) & causal").module.main) == str(pd.compile(SPEC).module.main)
    )
    assert not found(pd.compile("causal & (local(9) | strided(7))"))
    assert not found(pd.compile(SPEC), n=97)
    assert not found(pd.compile(SPEC), batch=2) and not found(pd.compile(SPEC), itemsize=2)
    assert not found(pd.compile(SPEC, block_sizes=(16, 16)))
    monkeypatch.setattr(pd, "__version__", "0.0.0")
    assert not found(pd.compile(SPEC))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: "\x00\xff",
        lambda text: text.replace('"kind"', '"sort"'),
        lambda text: text.replace('"layout": "identity"', '"layout": "spiral"'),
        lambda text: text.replace('"block_q": ', '"block_q": -'),
        lambda text: text.replace('"choice"', '"choices"'),
        lambda text: text.replace('"heads": 2', '"heads": 3'),
        lambda text: text.replace('"members": null', '"members": [7]'),
    ],
)
def test_damaged_files_are_ignored_with_a_warning(
    clock: list[pd.Attention], change, empty_cache: Path
) -> None:
    (tuned,) = pd.autotune("causal & local(9)", [SHAPE], most=2)
    assert tuned.path is not None
    text = tuned.path.read_text()
    assert change(text) != text
    tuned.path.write_text(change(text), "latin-1" if "\xff" in change(text) else "utf-8")
    with pytest.warns(RuntimeWarning, match="patterndsl ignores"):
        assert "autotune" not in chosen(pd.compile("causal & local(9)"))[1]


def test_nothing_is_stored_where_it_is_not_to_be(clock: list[pd.Attention], empty_cache: Path) -> None:
    (tuned,) = pd.autotune(SPEC, [SHAPE], most=1, store=False)
    assert tuned.path is None and "not stored" in str(tuned) and not list(empty_cache.rglob("*.json"))


def test_shapes_of_queries_and_keys_mixtures_and_heads(clock: list[pd.Attention]) -> None:
    text = "heads { 0 => mix(causal & local(5), causal & strided(4)); _ => mix(causal, local(3)) }"
    tuned = pd.autotune(text, [((1, 32, 2, 8), (1, 64, 1, 8)), (2, 48, 2, 8)], most=2)
    assert [t.shapes.n for t in tuned] == [64, 48] and tuned[0].shapes.kv_heads == 1
    assert all(t.path is not None for t in tuned)
    assert all(len(given) == 2 == len(given[0]) for a in clock if (given := a.given) is not None)


def test_inputs_are_passed_on() -> None:
    spec = pd.parse("input doc: token\npattern main = causal & same(doc)")
    ids = np.arange(SHAPE[1]) // 20
    (tuned,) = pd.autotune(spec, [SHAPE], most=1, repeats=1, inputs={"doc": ids})
    assert tuned.measured[0].seconds > 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: pd.autotune(SPEC, [(96, 2, 8)]),
        lambda: pd.autotune(SPEC, [((1, 32, 3, 8), (1, 64, 2, 8))]),
        lambda: pd.autotune(SPEC, [SHAPE], most=0),
        lambda: pd.autotune(SPEC, [SHAPE], repeats=True),
        lambda: pd.autotune("input doc: token\npattern main = same(doc)", [SHAPE]),
    ],
)
def test_arguments_that_make_no_sense(call) -> None:
    with pytest.raises(pd.SpecError) as caught:
        call()
    assert caught.value.codes == ("E405",)


@pytest.mark.parametrize("backend", ["xla", "cpu_native"])
def test_calibration_is_stored_and_used(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        calibration, "CASES", (("causal & local(16)", 128, 8), ("causal & strided(8)", 64, 16))
    )
    monkeypatch.setattr(calibration, "SIZES", ((32, 32),))
    if backend == "cpu_native":
        with pytest.raises(pd.SpecError, match="not been built"):
            pd.calibrate(backend=backend)
        use_kernel(monkeypatch)
    before, other = rates_of("cpu", backend), {"xla": "cpu_native", "cpu_native": "xla"}[backend]
    unmoved = rates_of("cpu", other)
    (found,) = pd.calibrate(backend=backend)
    assert found.path is not None and json.loads(found.path.read_text())["devices"]["cpu"].keys() == {backend}
    assert len(found.runs) >= 2 and found.error >= 0 and "predicted within" in str(found)
    after = rates_of("cpu", backend)
    assert after != before and dict(zip(found.rates, after.seconds, strict=True)) == found.rates
    assert f"measured on {tuning.device()}" in after.origin and rates_of("cpu", other) == unmoved
    for name in (backend, "auto"):  # which takes the kernel where it is built, as it is here by then
        assert after.origin in pd.compile("causal & local(64)", backend=name).plan(2048).explain()
    with pytest.raises(pd.SpecError, match="too few"):
        pd.calibrate(backend=backend, seconds=0.0)
    assert rates_of("cpu", backend) == after


def test_no_home_and_no_place_to_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    assert "autotune" not in chosen(pd.compile(SPEC))[1]
    with pytest.raises(OSError):
        cache.write("x.json", "something", {})
