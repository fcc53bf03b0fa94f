"""`tsattn leaderboard forecasts`: keep one forecast of every kept checkpoint, for the pictures.

The page is rendered from results alone, so what it draws is kept there as numbers.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tsattn.bench.leaderboard.cells import Board, read_board
from tsattn.bench.leaderboard.command import write
from tsattn.bench.leaderboard.forecast_plots import COLUMNS, FORECASTS
from tsattn.bench.leaderboard.kept_rows import checkpoint_of
from tsattn.bench.leaderboard.published import ACTIVATIONS
from tsattn.bench.opened import Opened, open_kept
from tsattn.bench.rows import Row
from tsattn.errors import DataAbsentError
from tsattn.options import CommandParser
from tsattn.training.calling import forecast_of
from tsattn.training.pictures import window_times

_DIGITS = 5


def forecasts(words: Sequence[str]) -> int:
    """Run ``tsattn leaderboard forecasts`` as typed after that.

    Raises:
        DataError: results or data that cannot be read.
        CheckpointError: a kept checkpoint that cannot be read.
    """
    parser = CommandParser(
        prog="tsattn leaderboard forecasts",
        description=f"Write {FORECASTS} beside the rows: what the kept checkpoints of each model's "
        "first seed forecast for the middle test window, last channel.",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows")
    parser.add_argument("--root", type=Path | None, help="folder searched first for the data")
    given = parser.parse_args(list(words))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    path = given.results / FORECASTS
    for group in groups(read_board(given.results)):
        try:
            runs = [
                (row, open_kept(checkpoint_of(row, given.results), row.precision, given.root))
                for row in group
            ]
        except DataAbsentError as error:
            print(f"not drawn anew: {error}")
            writer.writerows(_there(path, group))
            continue
        writer.writerows(_lines(runs))
        count += len(runs)
    write(path, text.getvalue())
    print(f"{path}: forecasts of {count} checkpoints")
    return 0


def _there(path: Path, group: Sequence[Row]) -> list[list[str]]:
    """Return the lines of a group that an earlier file has."""
    if not path.is_file():
        return []
    names = {row.value_activation for row in group} | {""}
    place = [str(part) for part in _place(group[0])]
    with path.open(newline="", encoding="utf-8") as file:
        lines = [list(line.values()) for line in csv.DictReader(file)]
    activation = COLUMNS.index("value_activation")
    return [line for line in lines if line[: len(place)] == place and line[activation] in names]


def _place(row: Row) -> list[str | int]:
    return [row.protocol, row.model, row.dataset, row.seed]


def groups(board: Board) -> Iterator[list[Row]]:
    """Yield the rows to draw together: a model on a dataset, the first seed that is kept."""
    for dataset in board.datasets():
        for protocol, model in board.networks(dataset):
            cells = board.row_of_cells(protocol, model, dataset)
            kept = [row for name in ACTIVATIONS for row in cells[name].rows if row.checkpoint]
            if kept:
                first = min(row.seed for row in kept)
                yield [row for row in kept if row.seed == first]


def _lines(runs: Sequence[tuple[Row, Opened]]) -> Iterator[list[object]]:
    """Yield the end of the context and the truth once, and every run's forecast."""
    row, opened = runs[0]
    windows, scaler = opened.data.prepared.test, opened.data.prepared.scaler
    window = len(windows) // 2
    batch, series = windows[window], windows.series_W[window : window + 1]
    channel = opened.data.channels - 1
    context, horizon = opened.data.context, opened.data.horizon
    times = window_times(opened.data, window)
    place = [*_place(row), window, opened.data.prepared.panel.channels[channel]]

    def lines(name: str, values: Sequence[float], first: int) -> Iterator[list[object]]:
        for step, value in enumerate(values, start=first):
            time = times[context - 1 + step].isoformat(sep=" ", timespec="minutes")
            yield [*place, name, step, time, f"{value:.{_DIGITS}g}"]

    truth_1LC = torch.cat([batch.past_BTC, batch.future_BHC], dim=1)
    truth = scaler.to_original(truth_1LC, series)[0, :, channel].tolist()
    shown = min(context, horizon)
    yield from lines("", truth[context - shown :], 1 - shown)
    for one, run in runs:
        with torch.inference_mode():
            network = run.network.cpu().eval()
            forecast = forecast_of(network, batch).mean
        values = scaler.to_original(forecast.float(), series)[0, :, channel].tolist()
        yield from lines(one.value_activation, values, 1)
