"""`tsattn compare` of runs whose test part has missing values: the scores are those of the runs."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.tiny import fit
from tsattn.bench.compare.differences import compare_sides, pairing_of
from tsattn.bench.compare.errors import ErrorsOfRun, Sums
from tsattn.bench.compare.report import sentence
from tsattn.bench.compare.sides import Scored, require_same_windows
from tsattn.bench.opened import Opened
from tsattn.cli import main
from tsattn.errors import DataError
from tsattn.models import LastValue
from tsattn.training.command import run
from tsattn.training.datamodule import ForecastData

CONTEXT, HORIZON, ROWS, TEST = 12, 4, 400, 320
NAMES = ("identity", "tanh")
WINDOWS, EMPTY = ROWS - TEST - HORIZON + 1, 5


@pytest.fixture(autouse=True)
def _as_in_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)


def file_with_gaps(folder: Path) -> Path:
    """Of the test part, b is observed in part, c never, and of eight rows nothing is."""
    chance = np.random.default_rng(0)
    hours = np.arange(ROWS)
    waves = {name: (k + 1) * np.sin(hours / (4 + k)) for k, name in enumerate("abc")}
    frame = pd.DataFrame(waves) + chance.normal(size=(ROWS, 3))
    frame.loc[TEST + np.flatnonzero(chance.random(ROWS - TEST) < 0.3), "b"] = np.nan
    frame.loc[TEST:, "c"] = np.nan
    frame.loc[350:357] = np.nan
    frame.insert(0, "date", pd.date_range("2024-01-01", periods=ROWS, freq="h"))
    frame.to_csv(folder / "gaps.csv", index=False)
    return folder / "gaps.csv"


@dataclass(frozen=True)
class Masked:
    """Two runs, what they scored, and what `tsattn compare` said and wrote."""

    runs: list[Path]
    results: list[dict[str, Any]]
    printed: str
    files: Path

    def read(self, name: str) -> list[dict[str, str]]:
        with (self.files / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def errors_WHC(self, place: int) -> np.ndarray:
        """Return the errors of the stored forecasts, NaN without a target."""
        file = self.files / f"stored-{place}.npz"
        if not file.exists():
            run(["test", "--config", str(self.runs[place] / "config.yaml"), "--ckpt_path", "best",
                 "--save_predictions", str(file)])  # fmt: skip
        with np.load(file) as stored:
            return stored["prediction"].astype(np.float64) - stored["target"]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Masked]:
    home = tmp_path_factory.mktemp("masked")
    file, runs = file_with_gaps(home), [home / name for name in NAMES]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
            patch.setenv(name, "")
            patch.delenv(name)
        with patch.context() as quick:
            quick.setitem(sys.modules, "matplotlib.figure", None)
            results = [
                fit(folder, "--data.dataset", file, "--data.missing", "mask",
                    "--data.borders", "[0.7,0.1,0.2]",
                    "--data.context", CONTEXT, "--data.horizon", HORIZON,
                    "--trainer.max_epochs", 1, "--model.network.value_activation", folder.name)
                for folder in runs
            ]  # fmt: skip
        printed = home / "printed.txt"
        with printed.open("w", encoding="utf-8") as out:
            patch.setattr(sys, "stdout", out)
            assert main(["compare", *map(str, runs), "--out", str(home / "out")]) == 0
        yield Masked(runs, results, printed.read_text(encoding="utf-8"), home / "out")


def test_scores_are_those_of_the_results(masked: Masked) -> None:
    channels = masked.read("channels.csv")
    totals = {line["score"]: line for line in masked.read("differences.csv")
              if line["over"] == "all"}  # fmt: skip
    for place, folder in enumerate(masked.runs):
        test = masked.results[place]["test"]
        mine = [line for line in channels if line["side"] == str(folder)]
        assert test["per_channel_mse"][2] is None
        assert [line["channel"] for line in mine] == ["a", "b", "c"]
        assert [line["mse"] for line in mine][2] == ""
        for metric in ("mse", "mae"):
            scores = [float(line[metric]) for line in mine[:2]]
            assert np.mean(scores) == pytest.approx(test[metric], rel=1e-6)
            assert f"{test[metric]:.4f}" in masked.printed
        mse = [float(line["mse"]) for line in mine[:2]]
        assert mse == pytest.approx(test["per_channel_mse"][:2], rel=1e-6)
    for metric, line in totals.items():
        scores = [result["test"][metric] for result in masked.results]
        assert float(line["difference"]) == pytest.approx(scores[1] - scores[0], abs=1e-6)
        assert float(line["low"]) < float(line["difference"]) < float(line["high"])


def test_channels_and_steps_are_means_over_the_observed_targets(masked: Masked) -> None:
    squared = [masked.errors_WHC(place) ** 2 for place in range(2)]
    steps = [float(line["mse"]) for line in masked.read("steps.csv")]
    expected = [np.nanmean(one, axis=(0, 2)) for one in squared]
    np.testing.assert_allclose(steps, np.concatenate(expected), rtol=1e-4)
    found = {(line["over"], line["at"]): line for line in masked.read("differences.csv")
             if line["score"] == "mse"}  # fmt: skip
    for step in range(HORIZON):
        difference = float(found["step", str(step + 1)]["difference"])
        assert difference == pytest.approx(expected[1][step] - expected[0][step], abs=1e-5)
    b_WH = (squared[1] - squared[0])[:, :, 1]
    line, seen_W = found["channel", "b"], ~np.isnan(b_WH).all(1)
    assert float(line["difference"]) == pytest.approx(np.nanmean(b_WH), abs=1e-5)
    assert int(line["pairs"]) == seen_W.sum() < WINDOWS - EMPTY
    assert [found["channel", "c"][name] for name in ("difference", "low", "p", "pairs")] == [
        "", "", "", "0"]  # fmt: skip


def test_report_says_what_is_missing_and_draws_the_rest(masked: Masked) -> None:
    printed = masked.printed
    assert f"paired over {WINDOWS - EMPTY} windows, 9 blocks of 8 or more, Student's t" in printed
    assert f"note: {EMPTY} of {WINDOWS} windows have no observed target" in printed
    assert "% of the test targets are missing and are not scored" in printed
    assert "channels without any observed target, and so without a score: c" in printed
    assert "nan" not in printed
    empty = [line["window"] for line in masked.read("windows.csv") if not line["mse"]]
    assert empty == [str(w) for w in range(30, 30 + EMPTY)] * 2
    assert (masked.files / "comparison.png").read_bytes().startswith(b"\x89PNG")


def data_of(file: Path, **settings: Any) -> ForecastData:
    sizes: dict[str, Any] = {"context": CONTEXT, "horizon": HORIZON, "borders": [0.7, 0.1, 0.2]}
    return ForecastData(str(file), **sizes | settings)


def scored(name: str, counts_WC: np.ndarray, seed: int) -> Scored:
    """Make up a run with that many observed targets and errors above 0."""
    sums_WC = counts_WC * np.random.default_rng(seed).random(counts_WC.shape)
    sums = Sums({"mse": sums_WC, "mae": sums_WC}, counts_WC)
    return Scored(name, {7: ErrorsOfRun(sums, sums)})


def test_channel_with_targets_in_few_blocks_leaves_all_undecided(tmp_path: Path) -> None:
    data = data_of(file_with_gaps(tmp_path), missing="mask")
    counts_WC = np.full((WINDOWS, 3), HORIZON, np.int32)
    counts_WC[10:, 1] = 0
    sides = [scored("one", counts_WC, 0), scored("two", counts_WC, 1)]
    pairing = pairing_of(sides, data)
    (compared,) = compare_sides(sides, pairing)
    assert "9 blocks of 8 or more, too few for a test" in pairing.method
    assert any("b; give several seeds" in note for note in pairing.notes)
    assert sentence(compared, "one", pairing).endswith("fewer than 6 blocks of time: b")
    assert compared.total["mse"].p is None
    assert [d.p is None for d in compared.channels["mse"]] == [False, True, False]


def test_forecasts_that_are_no_numbers_are_not_scored_as_perfect(tmp_path: Path) -> None:
    data = data_of(file_with_gaps(tmp_path), missing="mask")
    counts_WC = np.full((WINDOWS, 3), HORIZON, np.int32)
    sides = [scored(name, counts_WC, seed) for seed, name in enumerate(["one", "two", "three"])]
    sides[1].errors[7].channels.errors["mse"][0] = np.nan
    pairing = pairing_of(sides, data)
    diverged, other = compare_sides(sides, pairing)
    assert "not a finite number" in sentence(diverged, "one", pairing)
    assert other.adjusted_p == other.total["mse"].p is not None


def test_runs_that_observed_other_targets_are_refused(tmp_path: Path) -> None:
    frame = pd.read_csv(file_with_gaps(tmp_path))
    twice = frame.loc[[380]].assign(b=np.nan)
    file = tmp_path / "twice.csv"
    pd.concat([frame.loc[:379], twice, frame.loc[380:].fillna({"b": 0.0})]).to_csv(
        file, index=False
    )
    first, last = (
        Opened(kept, 7, LastValue(channels=3, context=CONTEXT, horizon=HORIZON),
               data_of(file, missing="mask", duplicates=kept), "32-true")
        for kept in ("first", "last")
    )  # fmt: skip
    require_same_windows(first, first)
    with pytest.raises(DataError, match="targets that were observed in one of them only"):
        require_same_windows(first, last)
