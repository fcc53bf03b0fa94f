"""``tsattn fit`` as a person types it: on files of their own, and where something lies already."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.tiny import contents, fit_words, stored_result
from tsattn.cli import main
from tsattn.training.folder import RunFolder

Write = Callable[..., Path]
QUICK = ["--trainer.max_epochs", "1", "--trainer.logger", "false"]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as if matplotlib were missing: pictures take longer than a tiny training."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write_wide(tmp_path: Path) -> Write:
    """Write hourly random walks as a wide CSV file."""

    def write(rows: int, channels: int = 2) -> Path:
        walks = np.random.default_rng(rows).normal(size=(rows, channels)).cumsum(axis=0)
        frame = pd.DataFrame(walks.round(3), columns=[f"c{i}" for i in range(channels)])
        frame.insert(0, "date", pd.date_range("2020-01-01", periods=rows, freq="h"))
        frame.to_csv(tmp_path / "own.csv", index=False)
        return tmp_path / "own.csv"

    return write


@pytest.fixture
def write_long(tmp_path: Path) -> Write:
    """Write daily noise of several series as a long CSV file."""

    def write(*lengths: int) -> Path:
        random = np.random.default_rng(0)
        frames = [
            pd.DataFrame(
                {
                    "unique_id": f"s{number}",
                    "ds": pd.date_range("2020-01-01", periods=rows, freq="D"),
                    "y": (100 * number + random.normal(size=rows)).round(3),
                }
            )
            for number, rows in enumerate(lengths)
        ]
        pd.concat(frames).to_csv(tmp_path / "long.csv", index=False)
        return tmp_path / "long.csv"

    return write


def fitted(*words: object, run_dir: str = "run") -> dict[str, Any]:
    """Train as typed and return ``result.json``."""
    assert main(["fit", *map(str, words), *QUICK, "--run_dir", run_dir]) == 0
    return stored_result(RunFolder(Path(run_dir)))


def test_own_file_alone_is_enough(
    write_wide: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wide(60)
    assert main(["fit", "--data.dataset", "own.csv"]) == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert run_dir.name.startswith("patchtst-own-")
    result = stored_result(RunFolder(run_dir))
    assert (result["context"], result["horizon"]) == (10, 3)
    assert result["test"]["windows_scored"] == 10
    assert result["dataset"]["name"] == "own"
    shown = capsys.readouterr().out
    for part in (
        "60 rows x 2 channels",
        "last value",
        "window mean",
        "PatchTST",
        str(run_dir.name),
    ):
        assert part in shown
    assert "pip install" in shown  # what is missing for the picture


def test_ten_rows_are_enough(write_wide: Write) -> None:
    write_wide(10, channels=1)
    result = fitted("--data.dataset", "own.csv")
    assert (result["context"], result["horizon"]) == (1, 1)
    assert result["test"]["windows_scored"] == 2


def test_too_few_rows_are_refused_with_the_numbers(
    write_wide: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wide(3)
    assert main(["fit", "--data.dataset", "own.csv"]) == 1
    assert "needs 2 (context 1 + horizon 1)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own.csv"]


def test_series_of_unequal_length_are_trained_together(write_long: Write) -> None:
    write_long(60, 90, 45)
    result = fitted("--data.dataset", "long.csv", "--save_predictions", "out.npz")
    assert result["dataset"]["series"] == 3
    assert result["dataset"]["channels"] == 1
    assert (result["context"], result["horizon"]) == (62 // 4, 10 // 2)
    with np.load("out.npz") as stored:
        assert stored["series"].tolist() == ["s0"] * 8 + ["s1"] * 14 + ["s2"] * 5
        for number in range(3):  # every series in units of its own
            level = stored["target_original"][stored["series"] == f"s{number}"].mean()
            assert level == pytest.approx(100 * number, abs=2)


def test_context_and_horizon_override_any_recipe() -> None:
    sizes = ["--data.context", "40", "--data.horizon", "9"]
    for recipe, network in (("patchtst", "PatchTST"), ("transformer", "EncoderDecoderTransformer")):
        smaller = [
            *("--model.network.d_model", "8", "--model.network.num_heads", "2"),
            *("--model.network.d_ff", "16"),
        ]
        result = fitted(
            *("--config", f"configs/{recipe}/illness.yaml", *sizes, *smaller),
            run_dir=recipe,
        )
        assert result["network"]["class"] == network
        assert result["network"]["arguments"]["context"] == result["context"] == 40
        assert result["network"]["arguments"]["horizon"] == result["horizon"] == 9
        assert result["test"]["windows_scored"] == 193 - 9 + 1


def test_overlay_without_a_network_goes_on_top_of_the_generic_recipe(write_wide: Write) -> None:
    write_wide(60)
    result = fitted("--config", "configs/trainer/cpu.yaml", "--data.dataset", "own.csv")
    assert result["network"]["class"] == "PatchTST"
    assert result["context"] == 10


@pytest.mark.parametrize(
    ("borders", "expected"),
    [
        ("[0.6, 0.2, 0.2]", {"train": [0, 120], "val": [110, 160], "test": [150, 200]}),
        ("[100, 150, 190]", {"train": [0, 100], "val": [90, 150], "test": [140, 190]}),
    ],
)
def test_borders_are_those_asked_for(
    write_wide: Write, borders: str, expected: dict[str, list[int]]
) -> None:
    write_wide(200)
    result = fitted(
        *("--data.dataset", "own.csv", "--data.borders", borders),
        *("--data.context", 10, "--data.horizon", 5),
    )
    assert result["dataset"]["borders"]["own"] == expected
    begin, end = expected["test"]
    assert result["test"]["windows_scored"] == end - begin - 15 + 1


def test_borders_that_overlap_are_refused(
    write_wide: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wide(200)
    assert main(["fit", "--data.dataset", "own.csv", "--data.borders", "[150, 100, 200]"]) == 1
    assert "borders [150, 100, 200] overlap" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own.csv"]


@pytest.mark.parametrize("network", ["DLinear", "EncoderDecoderTransformer"])
def test_another_network_takes_its_sizes_from_the_data(write_wide: Write, network: str) -> None:
    write_wide(120, channels=3)
    sizes = ["--model.network.d_model", "16", "--model.network.d_ff", "16"]
    words = ["--data.dataset", "own.csv", "--model.network", network]
    words += sizes if network == "EncoderDecoderTransformer" else []
    result = fitted(*words, "--data.context", 20, "--data.horizon", 5)
    assert result["network"]["class"] == network
    assert result["network"]["arguments"]["channels"] == 3
    assert result["network"]["arguments"]["context"] == 20


def test_calendar_of_the_data_sizes_the_network(write_wide: Write) -> None:
    write_wide(120)
    result = fitted(
        *("--data.dataset", "own.csv", "--model.network", "EncoderDecoderTransformer"),
        *("--model.network.d_model", 16, "--model.network.d_ff", 16),
        *("--data.calendar", "[hour_of_day, day_of_week]"),
    )
    assert result["network"]["arguments"]["calendar_features"] == 2


def test_existing_run_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*fit_words(tmp_path / "run"), *QUICK]
    assert main(words) == 0
    before = contents(tmp_path)
    assert main([*words, "--seed_everything", "99"]) == 1
    said = capsys.readouterr().err
    for part in ("holds a run already", "--run_dir", "--ckpt_path last", "--overwrite"):
        assert part in said
    assert contents(tmp_path) == before


def test_overwrite_replaces_the_runs_files_and_no_others(tmp_path: Path) -> None:
    words = [*fit_words(tmp_path / "run"), *QUICK]
    assert main(words) == 0
    (tmp_path / "run" / "notes.txt").write_text("precious")
    (tmp_path / "run" / "mine").mkdir()
    (tmp_path / "run" / "mine" / "data.csv").write_text("precious")
    assert main([*words, "--overwrite", "--seed_everything", "99"]) == 0
    assert stored_result(RunFolder(tmp_path / "run"))["seed"] == 99
    assert (tmp_path / "run" / "notes.txt").read_text() == "precious"
    assert (tmp_path / "run" / "mine" / "data.csv").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_folder_that_is_no_run_is_refused_even_when_told_to_overwrite(
    tmp_path: Path, overwrite: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    (home / "checkpoints" / "best.ckpt").write_text("precious")
    (home / "result.json").write_text("precious")
    before = contents(tmp_path)
    assert main([*fit_words(home), *overwrite]) == 1
    assert "is no run folder" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_file_in_place_of_a_run_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("precious")
    assert main([*fit_words(tmp_path / "run"), "--overwrite"]) == 1
    assert "is no run folder" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "precious"


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "words",
    [
        ["--model.network", "LastValue"],
        ["--model.network.value_activation", "tanhh"],
        ["--data.batch_size", "0"],
        ["--data.dataset", "ETTh3"],
        ["--trainer.precision", "8"],
        ["--ckpt_path", "no.ckpt"],
    ],
)
def test_run_that_cannot_start_leaves_the_one_it_was_to_replace(
    tmp_path: Path, words: list[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    for file in (folder.config, folder.result, folder.best, folder.metrics):
        file.write_text("precious")
    before = contents(tmp_path)
    try:
        status = main([*fit_words(folder.path), "--overwrite", *words])
    except SystemExit as leaving:
        status = leaving.code
    assert status in (1, 2)
    assert contents(tmp_path) == before


def test_network_without_parameters_is_sent_to_the_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*fit_words(tmp_path / "run"), "--model.network", "LastValue"]) == 1
    said = capsys.readouterr().err
    assert "LastValue has no parameters" in said
    assert "tsattn test" in said
    assert not (tmp_path / "run").exists()
