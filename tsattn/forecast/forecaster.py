"""Forecasts of new data by a trained network, without its training data and without a Trainer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from tsattn.data.amounts import counted
from tsattn.data.reading import Reading
from tsattn.data.steps import step_text
from tsattn.errors import CheckpointError, ConfigError
from tsattn.forecast.alone import one_channel
from tsattn.forecast.covariates import covariates_ahead, require_known, split_ahead
from tsattn.forecast.engine import (
    calendar_of,
    forecast_windows,
    require_finite,
    require_forecasts,
    scaler_of,
)
from tsattn.forecast.history import History
from tsattn.forecast.intervals import Bands, Intervals, checked_levels, in_original, intervals_of
from tsattn.forecast.outlook import Outlook
from tsattn.forecast.reading import read_history
from tsattn.forecast.seen import seen_notes
from tsattn.forecast.sources import Frame, Source, open_source
from tsattn.forecast.trained import Trained, trained_of
from tsattn.models import ForecastNetwork
from tsattn.training.artifact import RECORD_FILE, is_artifact
from tsattn.training.checkpoint import load_trained
from tsattn.training.folder import RunFolder

if TYPE_CHECKING:
    from tsattn.forecast.backtest import Backtest

_AS_IS = Reading()


class Forecaster:
    """A trained network that forecasts new data in their own units.

    Scaler, names, step and calendar come from the checkpoint. Channels are matched by name, in any
    order.

    Args:
        network: the network; it is put into evaluation mode.
        trained: what its checkpoint says of the data it was trained on.
        intervals: what its checkpoint says of the uncertainty of its forecasts.
        run: the run folder that it was loaded from, for training again.

    Example:
        >>> forecaster = Forecaster.load("demo")
        >>> forecaster.predict(pd.read_csv("datasets/ETTh1.csv")).shape
        (192, 8)
    """

    def __init__(
        self,
        network: ForecastNetwork,
        trained: Trained,
        intervals: Intervals | None = None,
        run: RunFolder | None = None,
    ) -> None:
        self.network = network.eval()
        self.trained = trained
        self.intervals = intervals or Intervals(network.quantiles, None)
        self.run = run
        self._alone: ForecastNetwork | None = None

    @classmethod
    def load(cls, path: str | Path, network: ForecastNetwork | None = None) -> Self:
        """Open a checkpoint; nothing in the file is executed.

        Args:
            path: a run folder, whose best checkpoint is taken, a checkpoint's file, or a folder
                that ``tsattn export`` wrote.
            network: a network to load the weights into, for one that a checkpoint cannot name.

        Raises:
            CheckpointError: there is none, it is damaged or foreign, or says nothing of its data.
        """
        path = Path(path).expanduser()
        file = _checkpoint(path)
        loaded, record = load_trained(file, network)
        trained = trained_of(record, loaded, str(file))
        require_forecasts(loaded, trained, str(file))
        intervals = intervals_of(record, loaded, trained, str(file))
        run = RunFolder(path) if path.is_dir() and file != path else None
        return cls(loaded, trained, intervals, run)

    def __repr__(self) -> str:
        """Say what it forecasts, in a line."""
        names = counted(len(self.trained.names), self.trained.kind)
        kind, steps = type(self.network).__name__, f"{self.context} rows to {self.horizon}"
        return f"Forecaster({kind}, {names}, {steps}, {step_text(self.trained.step)} apart)"

    @property
    def context(self) -> int:
        """Rows of every series that a forecast looks at."""
        return self.trained.context

    @property
    def horizon(self) -> int:
        """Rows that it forecasts."""
        return self.trained.horizon

    def predict(
        self,
        frame: Frame,
        levels: Sequence[float] | None = None,
        *,
        future: Frame | None = None,
        method: str | None = None,
        new_series: bool = False,
        sort: bool = False,
        reading: Reading = _AS_IS,
    ) -> Any:
        """Forecast the horizon after the last row of every series.

        Args:
            frame: a wide (time column, channels) or long (``unique_id, ds, y``) frame of pandas or
                polars, or the path of a CSV file. Only the last ``context`` rows of each series
                have to be whole. A network trained on a wide frame also takes a long one whose
                ``unique_id`` are its channels, and the other way round.
            levels: coverage of intervals in percent, such as ``[80, 95]``.
            future: a frame or file like ``frame``, with the covariates that are known ahead for the
                timestamps of the horizon; more rows and columns do not matter. Without it they are
                the last rows of ``frame`` itself, behind the last one with a value to forecast.
            method: ``conformal`` (scores of the validation windows, see `Intervals.bands`; about
                the network's quantiles where it has some) or ``quantile`` (those quantiles as they
                are); by default conformal where the checkpoint is calibrated.
            new_series: also forecast names that the network was not trained on, each by itself and
                standardised by the mean and deviation of all its rows in the frame; those trained
                on keep their scale, and none has to be there. Only networks that treat channels
                alike and apart can.
            sort: order the rows of each series by time first.
            reading: how to read a file where its content does not say so itself, and what to do
                with missing values and irregular timestamps; by default what was done in training.

        Returns:
            A frame of the same library and shape, in original units: the source's time column and
            channel names, or ``unique_id, ds, y``; the horizon's rows only. After each channel (or
            ``y``) the ends of its intervals, ``OT-lo-95, OT-lo-80, OT-hi-80, OT-hi-95``.

        Raises:
            DataError: the frame cannot be forecast; with series, rows and columns.
            ConfigError: ``levels`` that the checkpoint cannot give, also of new series, or
                ``new_series`` with a network that cannot.
        """
        return self.outlook(
            frame,
            levels,
            future=future,
            method=method,
            new_series=new_series,
            sort=sort,
            reading=reading,
        ).frame()

    def outlook(
        self,
        frame: Frame,
        levels: Sequence[float] | None = None,
        *,
        future: Frame | None = None,
        method: str | None = None,
        new_series: bool = False,
        sort: bool = False,
        reading: Reading = _AS_IS,
    ) -> Outlook:
        """Forecast as `predict` does, and return the forecast beside its history.

        Raises:
            DataError: the frame cannot be forecast.
            ConfigError: ``levels``, or ``new_series`` with a network that cannot.
        """
        chosen = checked_levels(levels)
        how = self.intervals.method_for(chosen, method)
        if how == "adaptive":
            raise ConfigError(
                "method adaptive learns from truth that arrives window by window, so it belongs to "
                "backtest; take conformal"
            )
        network = self._network(new_series=new_series)
        source = open_source(frame, reading)
        source, ahead = self._ahead(source, future, new_series, sort)
        history = self._history(source, self.context, "the context", new_series, sort)
        history.require_something()
        scaler = scaler_of(history, self.trained)
        calendar = calendar_of(history, self.trained)
        values_NK = scaler.standardise(history.values_KN.T)
        together = self._together(history, new_series=new_series)
        unknown_HK = values_NK.new_zeros(self.horizon, values_NK.shape[1])
        ahead = forecast_windows(
            network,
            torch.cat([values_NK, unknown_HK]),
            calendar,
            self.trained,
            torch.zeros(1, dtype=torch.int64),
            together,
            covariates_ahead(history, calendar, self.trained, together, ahead),
            fill=history.treatment.missing == "interpolate",
        )
        require_finite(ahead.mean_WHK, history)
        mean_1HK = scaler.to_original(ahead.mean_WHK, torch.zeros(1, dtype=torch.int64))
        bands: Bands = {}
        if how is not None:
            bands = self.intervals.bands(ahead, chosen, how, history.names, history.known)
        return Outlook(history, calendar, mean_1HK[0].T.numpy(), in_original(bands, scaler))

    def backtest(
        self,
        frame: Frame,
        windows: int = 1,
        step: int = 1,
        refit: bool = False,
        *,
        levels: Sequence[float] | None = None,
        method: str | None = None,
        new_series: bool = False,
        sort: bool = False,
        reading: Reading = _AS_IS,
    ) -> "Backtest":
        """Forecast the end of a frame again and again, as if it were not known, and score that.

        The last window's horizon ends with the frame; each window before begins ``step`` rows
        earlier. The network stays as it was trained, so rows that it was trained on score too well:
        where the frame is the one of the training, a note says how many windows have such rows.

        Args:
            frame: as in `predict`, with ``context + horizon + (windows - 1) * step`` rows or more.
            windows: how many windows.
            step: rows between two windows.
            refit: train again before each window, on all rows before it
                (`tsattn.forecast.refitting`); prints the cost first. It needs a forecaster that was
                loaded from a run folder, and takes 20 windows at most.
            levels: coverage of intervals in percent, to be scored too.
            method: as in `predict`, or ``adaptive``: conformal, its level corrected as truth
                arrives (`tsattn.forecast.adaptive`).
            new_series: as in `predict`; a new series' scale comes from all its rows, those to be
                forecast included.
            sort: order the rows of each series by time first.
            reading: how to read a file where its content does not say so itself.

        Returns:
            Forecasts, truth and their scores.

        Raises:
            DataError: the frame cannot be forecast, or is too short.
            ConfigError: ``windows`` or ``step`` below 1, ``levels`` or ``refit`` that cannot be,
                or ``new_series`` with a network that cannot.
        """
        from tsattn.forecast.backtest import (
            Asked,
            evaluate,
            scored,
        )  # needs torchmetrics, which takes its time

        _refuse_sizes(windows=windows, step=step)
        chosen = checked_levels(levels)
        how = self.intervals.method_for(chosen, method)
        if refit and new_series:
            raise ConfigError(
                "refit=True trains on all rows before each window, so there are no new series; "
                "leave one of them out"
            )
        network = self._network(new_series=new_series)
        rows = self.context + self.horizon + (windows - 1) * step
        needed = (
            f"context {self.context} + horizon {self.horizon} + {windows - 1} times the step {step}"
        )
        opened = open_source(frame, reading)
        source, _ = self._ahead(opened, None, new_series, sort)
        history = self._history(source, rows, needed, new_series, sort)
        together = self._together(history, new_series=new_series)
        asked = Asked(chosen, how, self.intervals) if how else None
        if refit:
            from tsattn.forecast.refitting import forecast_refitted

            ahead = forecast_refitted(self, history, windows, step, together, sort=sort)
            made = scored(ahead, history, self.trained, torch.arange(windows) * step, asked)
        else:
            made = evaluate(network, history, self.trained, windows, step, together, asked)
        seen = seen_notes(frame, opened, history, self.trained, windows, step, refitted=refit)
        return replace(made, notes=(*made.notes, *seen))

    def _network(self, *, new_series: bool) -> ForecastNetwork:
        """Return the network, or for new series its twin of one channel."""
        if not new_series or self.network.channels == 1:
            return self.network
        if self._alone is None:
            self._alone = one_channel(self.network)
        return self._alone

    def _together(self, history: History, *, new_series: bool) -> tuple[int, ...] | None:
        """Return the channels' places where the network takes them together, else None."""
        if new_series or self.trained.layout == "long":
            return None
        history.require_same_times()
        return tuple(place for place in history.known if place is not None)

    def _ahead(
        self, source: Source, future: Frame | None, new_series: bool, sort: bool
    ) -> tuple[Source, Source | None]:
        """Return the rows to forecast from, and those with what is known ahead."""
        if future is not None:
            require_known(self.trained)
            return source, open_source(future, source.reading)
        return split_ahead(source, self.trained, new_series=new_series, sort=sort)

    def _history(
        self, source: Source, rows: int, needed: str, new_series: bool, sort: bool
    ) -> History:
        return read_history(
            source, self.trained, rows, new_series=new_series, sort=sort, needed=needed
        )


def _checkpoint(path: Path) -> Path:
    if not path.is_dir() or is_artifact(path):
        return path
    best = RunFolder(path).best
    if not best.is_file():
        raise CheckpointError(
            f"{path} is a folder without {best.relative_to(path)} or {RECORD_FILE}; expected a run "
            "folder of tsattn fit, a folder of tsattn export, or a checkpoint's file"
        )
    return best


def _refuse_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} must be at least 1, got {size}")
