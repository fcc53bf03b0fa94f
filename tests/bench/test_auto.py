"""Where the compiled attention is compared with torch's, and how a slow place is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tsattn.bench import auto, settings
from tsattn.bench.auto import PHASES, Comparison, compare, summary, table
from tsattn.bench.kernels import as_handed_on
from tsattn.bench.settings import LENGTHS, WIDTHS, Setting, among, corners, grid
from tsattn.bench.timing import Spread
from tsattn.errors import ConfigError
from tsattn.ops import VALUE_ACTIVATIONS

TINY = Setting(length=9, width=4, batch=1, heads=2)


def test_the_grid_has_every_length_with_every_width_in_both_dtypes_causal_and_not() -> None:
    seen = {(s.length, s.width, s.dtype, s.is_causal, s.activation) for s in grid()}
    assert len(seen) == len(grid()) == len(LENGTHS) * len(WIDTHS) * 2 * 2 * 2
    assert (min(LENGTHS), max(LENGTHS), min(WIDTHS), max(WIDTHS)) == (16, 512, 4, 64)


def test_the_corners_have_all_activations_dropout_layouts_and_residual_scores() -> None:
    found = corners(["float32"])
    assert {s.activation for s in found} == set(VALUE_ACTIVATIONS)
    assert sum(s.dropout_p == 0.2 for s in found) == 2
    assert {s.layout for s in found} == {"contiguous", "heads last"}
    residual = {(s.batch, s.heads, s.length, s.width) for s in found if s.residual}
    assert residual == {(896, 4, 42, 4), (672, 16, 42, 8)}
    assert all(s.limit == 2.0 if s.residual else s.limit == 0.95 for s in found)


def test_every_shape_of_the_grid_is_about_the_same_work() -> None:
    for s in grid(["float32"]):
        work = s.batch * s.heads * s.length**2 * (s.width + 16)
        assert 0.5e8 < work < 2e8, s


def test_lengths_and_widths_narrow_the_settings_and_nothing_is_an_error() -> None:
    assert {(s.length, s.width) for s in among(grid(), [42], [4, 8])} == {(42, 4), (42, 8)}
    with pytest.raises(ConfigError, match=r"at lengths \[43\].*expected lengths among \(16, 42"):
        among(grid(), [43], None)


@pytest.mark.parametrize(
    "setting",
    [
        TINY,
        replace(TINY, dtype="bfloat16", is_causal=True, layout="heads last"),
        replace(TINY, residual=True, activation="gelu"),
        replace(TINY, dropout_p=0.2),
    ],
    ids=["plain", "causal", "residual", "dropout"],
)
def test_every_kind_of_setting_is_checked_and_compared(setting: Setting) -> None:
    checks = list(settings.checks([setting], ["reference"]))
    assert [check.passed for check in checks] == [True]
    found = list(compare([setting], ["reference", "sdpa"], rounds=1))
    assert [(c.impl, c.phase) for c in found] == [
        (impl, phase) for phase in PHASES for impl in ("reference", "sdpa")
    ]
    assert all(c.milliseconds.lowest > 0 and c.torch_milliseconds.lowest > 0 for c in found)


def test_both_sides_compute_the_same() -> None:
    setting = replace(TINY, residual=True, is_causal=False, activation="silu")
    inputs = auto._draw(setting)
    ours, _ = auto._ours(setting, "reference")(*inputs)
    theirs = auto._torchs(setting)(*inputs)
    assert ours.allclose(theirs, atol=1e-5)
    setting = replace(TINY, is_causal=True)
    ours = auto._ours(setting, "sdpa")(*inputs[:3])
    assert ours.allclose(auto._torchs(setting)(*inputs[:3]), atol=1e-5)


def test_a_low_ratio_is_measured_again_and_the_longer_measurement_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def measured(runs: dict[str, Callable[[], Any]], rounds: int, **_: Any) -> Any:
        asked.append(rounds)
        slow = 2.0 if rounds == 5 else 1.0
        return {"cpu": [slow] * rounds, "torch": [1.0] * rounds}

    monkeypatch.setattr(auto, "measure", measured)
    (found,) = compare([TINY], ["reference"], rounds=5, phases=["forward"])
    assert asked == [5, 15]
    assert not found.is_slower
    assert found.ratio.median == 1.0


def test_a_slow_place_is_marked_and_summed_up() -> None:
    once = Spread(1.0, 1.0, 1.0)
    fast = Comparison(TINY, "cpu", "forward", once, once, Spread(1.5, 1, 2), is_slower=False)
    slow = replace(
        fast,
        setting=replace(TINY, width=64),
        ratio=Spread(0.5, 0.4, 0.6),
        is_slower=True,
    )
    titles, rows = table([fast, slow])
    assert titles[-2:] == ["width 4", "width 64"]
    assert [row[-2:] for row in rows] == [["1.50", "0.50!"]]
    assert summary([fast, slow]).startswith("1 of 2 below the limit")
    assert "0.50, cpu forward, grid, 1x2 heads, length 9, width 64" in summary([fast, slow])


def test_previous_scores_lie_as_each_implementation_returns_its_own() -> None:
    drawn = [torch.randn(3, 2, 5, 5) for _ in range(4)]

    def turning(*qkvp: Tensor) -> tuple[Tensor, Tensor]:
        return qkvp[0], torch.randn(len(qkvp[3]), 2, 5, 5).transpose(2, 3)

    laid = as_handed_on(turning, drawn)[3]
    assert (laid.stride(2), laid.stride(3), laid.requires_grad) == (1, 5, True)
    torch.testing.assert_close(laid.detach(), drawn[3], rtol=0, atol=0)
    for call in (lambda *x: (x[0], x[3]), lambda *x: x[0]):
        assert as_handed_on(call, drawn) is drawn
    three = drawn[:3]
    assert as_handed_on(turning, three) is three
