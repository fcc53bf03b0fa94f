import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tsattn.data import CATALOG, Borders, count_windows, split_borders
from tsattn.data.splits import require_windows
from tsattn.errors import DataError

sizes = st.integers(1, 60)


# PROTOCOL section 2: rows, context, horizon and the windows of the three parts
TABLE = [
    ("ETTh1", 336, 192, (8113, 2689, 2689)),
    ("ETTh2", 336, 192, (8113, 2689, 2689)),
    ("ETTm1", 336, 192, (34033, 11329, 11329)),
    ("ETTm2", 336, 192, (34033, 11329, 11329)),
    ("weather", 336, 192, (36360, 5079, 10348)),
    ("traffic", 336, 192, (11753, 1565, 3317)),
    ("electricity", 336, 192, (17885, 2441, 5069)),
    ("illness", 104, 36, (537, 62, 158)),
]


@pytest.mark.parametrize(("name", "context", "horizon", "expected"), TABLE)
def test_window_counts_are_those_of_the_protocol(name, context, horizon, expected) -> None:
    info = CATALOG[name]
    borders = split_borders(info.rows, context, info=info)
    parts = borders.parts().values()
    assert tuple(count_windows(part, context, horizon) for part in parts) == expected


def test_etth_borders_are_those_of_the_protocol() -> None:
    borders = split_borders(17420, 336, info=CATALOG["ETTh1"])
    assert borders == Borders((0, 8640), (8640 - 336, 11520), (11520 - 336, 14400))


@given(num_rows=st.integers(1, 5000), context=st.integers(1, 100))
def test_shares_follow_the_70_10_20_rule(num_rows: int, context: int) -> None:
    borders = split_borders(num_rows, context)
    num_train, num_test = int(0.7 * num_rows), int(0.2 * num_rows)
    assert borders.train == (0, num_train)
    assert borders.val == (max(0, num_train - context), num_rows - num_test)
    assert borders.test == (max(0, num_rows - num_test - context), num_rows)
    assert split_borders(num_rows, context, borders=[0.7, 0.1, 0.2]) == borders


@given(data=st.data(), num_rows=st.integers(3, 1000), context=sizes)
def test_row_ends_divide_the_rows_without_overlap(data, num_rows: int, context: int) -> None:
    ends = data.draw(st.lists(st.integers(1, num_rows), min_size=3, max_size=3, unique=True))
    train_end, val_end, test_end = sorted(ends)
    borders = split_borders(num_rows, context, borders=[train_end, val_end, test_end])
    assert borders.train[1] == train_end
    assert borders.val == (max(0, train_end - context), val_end)
    assert borders.test == (max(0, val_end - context), test_end)


@given(num_rows=st.integers(1, 300), context=sizes, horizon=sizes)
def test_targets_of_the_parts_are_disjoint_and_in_order(num_rows, context, horizon) -> None:
    borders = split_borders(num_rows, context)
    seen: list[int] = []
    for begin, end in borders.parts().values():
        count = count_windows((begin, end), context, horizon)
        assume(count > 0)
        targets = range(begin + context, begin + count - 1 + context + horizon)
        assert targets.stop == end
        seen += targets
    assert seen == sorted(set(seen))


@given(begin=st.integers(0, 50), length=st.integers(0, 100), context=sizes, horizon=sizes)
def test_count_windows_counts_what_fits(begin, length, context, horizon) -> None:
    end = begin + length
    fitting = [row for row in range(begin, end) if row + context + horizon <= end]
    assert count_windows((begin, end), context, horizon) == len(fitting)


def test_shares_below_one_leave_the_last_rows_unused() -> None:
    borders = split_borders(1000, 10, borders=[0.5, 0.1, 0.2])
    assert borders == Borders((0, 500), (490, 600), (590, 800))


def test_the_users_borders_come_before_the_catalogs() -> None:
    borders = split_borders(17420, 10, info=CATALOG["ETTh1"], borders=[100.0, 200, 300])
    assert borders == Borders((0, 100), (90, 200), (190, 300))


@pytest.mark.parametrize(
    ("borders", "message"),
    [
        ([500, 400, 900], r"\[500, 400, 900\] overlap or decrease"),
        ([500, 500, 900], "overlap or decrease"),
        ([0, 500, 900], "0 < train_end"),
        ([-5, 500, 900], "overlap or decrease"),
        ([500, 700, 1001], r"end at row 1001, but there are 1000 rows; expected test_end <= 1000"),
        ([0.7, 0.2, 0.2], r"sum to 1\.1, so the parts would overlap"),
        ([0.7, 0.3], "are 2 numbers; expected three"),
        ([0.5, 600, 900], "neither whole rows nor shares"),
        ([0.5, 0.5, -0.1], "neither whole rows nor shares"),
        ([float("nan"), 600, 900], "neither whole rows nor shares"),
        ([float("inf"), 600, 900], "neither whole rows nor shares"),
    ],
)
def test_impossible_borders_raise_with_the_numbers(borders, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_borders(1000, 10, borders=borders)


def test_a_part_too_short_for_a_window_raises_with_rows_and_need() -> None:
    borders = split_borders(200, 96)
    with pytest.raises(DataError) as caught:
        require_windows(borders, 96, 48, name="own.csv")
    message = str(caught.value)
    assert "own.csv: the train part has 140 rows [0, 140)" in message
    assert "needs 144 (context 96 + horizon 48)" in message
    assert "--data.context" in message
