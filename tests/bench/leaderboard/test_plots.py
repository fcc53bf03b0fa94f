"""Places in the drawings."""

import pytest

from tests.bench.leaderboard.made import ILLNESS, illness
from tsattn.bench.leaderboard.cells import Board
from tsattn.bench.leaderboard.claims import compare_with
from tsattn.bench.leaderboard.plots import (
    LETTER,
    Tick,
    differences_plot,
    round_values,
    scores_plot,
    staggered,
)

PAPERS: dict[str, float | None] = {"identity": 1.474, "gelu": 1.52, "tanh": None}
CELLS = Board(illness()).row_of_cells("table2", "patchtst", "illness")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.4012, 0.4188, ["0.405", "0.410", "0.415"]),
        (-900.0, 2100.0, ["-500", "0", "500", "1000", "1500", "2000"]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(
    low: float, high: float, expected: list[str]
) -> None:
    assert [f"{value:.{digits}f}" for value, digits in round_values(low, high)] == expected


def test_every_seed_mean_and_figure_lies_where_its_number_says() -> None:
    plot = scores_plot("x", CELLS, PAPERS, {"window_mean": 1.45, "last_value": 7.7})
    assert [row.name for row in plot.rows] == ["Linear (identity)", "GELU", "Tanh"]
    identity, _, tanh = plot.rows
    dots = [dot.at for dot in identity.dots]
    values = list(ILLNESS["identity"].values())
    scale = (dots[0] - dots[2]) / (values[0] - values[2])

    def at(value: float) -> float:
        return dots[0] + scale * (value - values[0])

    assert identity.mean == pytest.approx(at(1.4), abs=0.2)
    assert identity.other == pytest.approx(at(1.474), abs=0.2)
    assert tanh.other is None
    assert tanh.mean == pytest.approx(at(3.91 / 3), abs=0.2)
    assert [line.text for line in plot.lines] == ["mean of the window 1.450"]
    assert plot.lines[0].at == pytest.approx(at(1.45), abs=0.2)
    places = [p for row in plot.rows for p in (row.low, row.high, row.mean) if p is not None]
    assert plot.left <= min(places) <= max(places) <= plot.right


def test_differences_are_drawn_beside_the_line_of_identity() -> None:
    plot = differences_plot("x", compare_with("identity", CELLS, PAPERS | dict.fromkeys(CELLS)))
    assert plot is not None
    gelu, tanh = plot.rows
    zero = plot.lines[0].at
    assert tanh.mean is not None
    assert gelu.mean is not None
    assert tanh.high is not None
    assert tanh.mean < tanh.high < zero < gelu.mean
    assert differences_plot("x", []) is None


def test_labels_of_lines_neither_cover_each_other_nor_leave_the_picture() -> None:
    at = (120.0, 505.0, 507.5, 549.0, 550.0)
    lines = staggered([Tick(place, "mean of the window 1.450") for place in at])
    half = LETTER * len(lines[0].text) / 2
    assert [line.at for line in lines] == sorted(at)
    for place, one in enumerate(lines):
        assert half <= one.middle <= 570.0 - half
        assert abs(one.middle - one.at) <= half
        for other in lines[place + 1 :]:
            assert one.level != other.level or other.middle - one.middle > 2 * half
    assert [line.level for line in lines][:2] == [0, 0]
