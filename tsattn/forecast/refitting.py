"""Rolling evaluation that trains the network again before every window, on the rows before it."""

import contextlib
import csv
import io
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tsattn.data.amounts import counted
from tsattn.errors import ConfigError
from tsattn.forecast.covariates import covariates_of
from tsattn.forecast.engine import calendar_of, forecast_windows, scaler_of
from tsattn.forecast.history import History
from tsattn.forecast.intervals import Ahead
from tsattn.forecast.refit_rows import RefitRows
from tsattn.forecast.trained import Trained
from tsattn.training.amounts import duration
from tsattn.training.folder import RunFolder

if TYPE_CHECKING:
    from tsattn.forecast.forecaster import Forecaster

MOST_WINDOWS = 20


def forecast_refitted(
    forecaster: "Forecaster",
    history: History,
    windows: int,
    step: int,
    together: tuple[int, ...] | None,
    *,
    sort: bool = False,
) -> Ahead:
    """Forecast each window with a network trained on all rows before it, as `tsattn refit` does.

    What it will cost is printed first. The trainings lie in a temporary folder, and leave random
    streams and environment as they were.

    Args:
        forecaster: of a run folder, whose recipe and number of epochs are taken.
        history: the rows of all windows.
        windows: how many.
        step: rows between two.
        together: as in `tsattn.forecast.engine.forecast_windows`.
        sort: order the rows of each series by time first.

    Returns:
        Forecasts, standardised by the forecaster's own scaler.

    Raises:
        ConfigError: no run folder, too many windows, or a source of another layout.
        DataError: the source's rows cannot be trained on.
    """
    from tsattn.training.validated import Validated  # needs Lightning

    if forecaster.run is None:
        raise ConfigError(
            "refit=True needs the recipe: load the forecaster from the run folder of tsattn fit "
            "(--ckpt RUN), not from a checkpoint's file alone"
        )
    if windows > MOST_WINDOWS:
        raise ConfigError(
            f"refit=True would train {windows} times; at most {MOST_WINDOWS} windows: take fewer, "
            "further apart (step)"
        )
    validated = Validated.of(forecaster.run.path)
    rows = RefitRows.of(history, forecaster.trained, sort=sort)
    panel = rows.panel
    seconds = _epoch_seconds(forecaster.run)
    print(
        f"refit: {counted(windows, 'training')} of {counted(validated.epochs, 'epoch')} on up to "
        f"{panel.num_rows - panel.num_series * forecaster.horizon:,} rows"
        + (f", about {duration(windows * validated.epochs * seconds)}" if seconds else ""),
        flush=True,
    )
    made: list[Ahead] = []
    for window in range(windows):
        held_back = forecaster.horizon + (windows - 1 - window) * step
        with TemporaryDirectory(prefix="tsattn-refit-") as home:
            again = _trained_before(forecaster, rows, held_back, Path(home))
        start_1 = torch.tensor([window * step])
        made.append(_forecast(again, forecaster.trained, history, start_1, together))
        print(f"refit: window {window + 1} of {windows}", flush=True)
    quantiles = [one.quantiles_WHKQ for one in made if one.quantiles_WHKQ is not None]
    return Ahead(
        torch.cat([one.mean_WHK for one in made]), torch.cat(quantiles) if quantiles else None
    )


def _epoch_seconds(run: RunFolder) -> float:
    """Return what an epoch of the validated run took; 0 where that is not known."""
    if not run.metrics.is_file():
        return 0.0
    with run.metrics.open(newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return median(seconds) if seconds else 0.0


def _trained_before(
    forecaster: "Forecaster", rows: RefitRows, held_back: int, home: Path
) -> "Forecaster":
    """Train on all but the last rows of every series."""
    from tsattn.training.refit import refit, undisturbed_process

    assert forecaster.run is not None
    trained, file = forecaster.trained, home / "rows.csv"
    rows.before(held_back).to_csv(file, index=False)
    sizes = {"context": trained.context, "horizon": trained.horizon}
    settings = {f"data.{name}": value for name, value in {**rows.settings, **sizes}.items()}
    settings |= {"trainer.logger": "false", "trainer.enable_progress_bar": "false"}
    more = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with undisturbed_process(), contextlib.redirect_stdout(io.StringIO()):
        refit(forecaster.run.path, data=file, run_dir=home / "run", more=more)
        return type(forecaster).load(home / "run")


def _forecast(
    again: "Forecaster",
    trained: Trained,
    history: History,
    start_1: Tensor,
    together: tuple[int, ...] | None,
) -> Ahead:
    """Forecast a window, and standardise the forecast by the scaler of the first training."""
    names = again.trained.names
    own = replace(history, known=tuple(names.index(name) for name in history.names))
    scaler, base = scaler_of(own, again.trained), scaler_of(history, trained)
    calendar = calendar_of(history, trained)
    ahead = forecast_windows(
        again.network,
        scaler.standardise(history.values_KN.T),
        calendar,
        trained,
        start_1,
        together,
        covariates_of(history, calendar, again.trained, together),
        fill=history.treatment.missing == "interpolate",
    )
    factor_K = scaler.scale_SC[0] / base.scale_SC[0]
    shift_K = (scaler.mean_SC[0] - base.mean_SC[0]) / base.scale_SC[0]
    quantiles = ahead.quantiles_WHKQ
    return Ahead(
        (ahead.mean_WHK.double() * factor_K + shift_K).float(),
        None
        if quantiles is None
        else (quantiles.double() * factor_K.unsqueeze(-1) + shift_K.unsqueeze(-1)).float(),
    )
