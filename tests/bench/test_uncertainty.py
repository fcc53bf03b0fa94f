"""``tsattn bench uncertainty``: its figures are those of a backtest over the test windows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.tiny import TEST_WINDOWS, fit
from tsattn.bench.uncertainty import COLUMNS, TestPart, uncertainty
from tsattn.errors import ConfigError, ExistsError
from tsattn.training.refit import undisturbed_process


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch with quantiles."""
    folder = tmp_path_factory.mktemp("runs") / "quantiles"
    with undisturbed_process():
        fit(
            folder, "--trainer.max_epochs", 1, "--model.loss", "quantile",
            "--model.network.quantiles", "[0.1,0.5,0.9]",
        )  # fmt: skip
    return folder


def test_figures_are_those_of_all_test_windows(
    run_dir: Path, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "u.csv"
    assert uncertainty([str(run_dir), "--levels", "80", "--out", str(out)]) == 0
    frame = pd.read_csv(out).set_index("method")
    assert frame.index.tolist() == ["CQR", "adaptive CQR", "quantile"]
    assert frame.columns.tolist() == [name for name in COLUMNS if name != "method"]
    part = TestPart.of(run_dir)
    assert part.windows == TEST_WINDOWS
    shipped = pd.read_csv(root / "datasets" / "national_illness.csv")
    made = part.forecaster.backtest(shipped, TEST_WINDOWS, levels=[80], method="quantile")
    truth, band = made.truth_WHK["standardised"], made.bands[80]
    inside = ((band.lower_WHK <= truth) & (truth <= band.upper_WHK)).double()
    assert frame.loc["quantile", "coverage"] == pytest.approx(inside.mean().item(), rel=1e-5)
    assert frame.loc["quantile", "first_step"] == pytest.approx(
        inside[:, 0].mean().item(), rel=1e-5
    )
    result = (run_dir / "result.json").read_text(encoding="utf-8")
    assert np.isclose(
        pd.read_json(run_dir / "result.json", typ="series")["quantiles"]["intervals"][0][
            "coverage"
        ],
        inside.mean().item(),
        atol=1e-4,
    ), result
    assert "| quantiles | CQR | 80 |" in capsys.readouterr().out
    with pytest.raises(ExistsError, match="choose another"):
        uncertainty([str(run_dir), "--out", str(out)])


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        uncertainty([str(tmp_path)])
