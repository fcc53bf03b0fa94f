"""Kept checkpoints give the scores of their rows, and a lie is found."""

import csv
import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.bench.leaderboard.made import row, write
from tests.bench.trained import Trained, changed
from tsattn.bench.grid.kept import read_weights
from tsattn.bench.leaderboard.kept_rows import matching, name_of, read_all
from tsattn.bench.leaderboard.render import content_of, html
from tsattn.cli import main
from tsattn.data import CATALOG
from tsattn.errors import ConfigError
from tsattn.training.checkpoint import RECORD

pytestmark = pytest.mark.usefixtures("_no_seed_left")


@pytest.fixture
def _no_seed_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)


def verified(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["leaderboard", "verify", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_every_kept_checkpoint_gives_the_score_of_its_row(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = verified(capsys, "--results", trained.results)
    assert status == 0
    assert "4 of 4 rows are equal" in out
    mse = trained.scores["tanh", 8]["test"]["mse"]
    assert f"equal      patchtst/illness/tanh/8: test MSE {mse:.6f}, row {mse:.6f}" in out


def test_a_row_is_found_by_parts_of_its_key(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = verified(capsys, "tanh/illness/7", "--results", trained.results)
    assert status == 0
    assert re.findall(r"^equal +(\S+):", out, flags=re.MULTILINE) == ["patchtst/illness/tanh/7"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_mse": 0.5}, r"test_mse is [\d.]+, the row says 0\.5"),
        ({"test_mae_as_published": 0.5}, r"test_mae_as_published is [\d.]+, the row says 0\.5"),
        ({"test_windows": 3}, "test_windows is 182, the row says 3"),
        ({"checkpoint_sha256": "c" * 64}, "has sha256 .*, the row says cccccccccccc"),
        ({"checkpoint": "gone.safetensors"}, r"gone\.safetensors is not there"),
    ],
)
def test_what_a_row_says_wrongly_is_named_and_the_status_is_one(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict,
    said: str,
) -> None:
    results = changed(trained.results, tmp_path / "results", **changes)
    status, out, _ = verified(capsys, "identity", "--results", results)
    assert status == 1
    assert re.search(rf"^DIFFERENT +patchtst/illness/identity/7: .*{said}", out, re.MULTILINE)
    assert "1 of 2 rows are equal" in out


def test_other_weights_under_a_rows_name_are_found(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained.results, results)
    first, second = sorted((results / "checkpoints" / "patchtst").glob("*identity*"))
    shutil.copy(second, first)
    status, out, _ = verified(capsys, "identity/7", "--results", results)
    assert status == 1
    assert "has sha256" in out
    assert "test_mse is" in out


def test_damaged_checkpoint_is_a_difference_and_no_crash(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained.results, results)
    for file in (results / "checkpoints" / "patchtst").glob("*identity-7*"):
        file.write_bytes(file.read_bytes()[:100])
    status, out, _ = verified(capsys, "--results", results)
    assert status == 1
    assert "cannot be read" in out
    assert "3 of 4 rows are equal" in out


def test_tolerance_is_relative(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mse = trained.scores["identity", 7]["test"]["mse"]
    results = changed(trained.results, tmp_path / "results", test_mse=mse * (1 + 1e-4))
    assert verified(capsys, "identity/7", "--results", results)[0] == 1
    assert verified(capsys, "identity/7", "--results", results, "--tolerance", 1e-3)[0] == 0


def test_unknown_row_gets_the_nearest_part(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = verified(capsys, "patchtst/illnes/tanh", "--results", trained.results)
    assert status == 1
    assert "no row has 'illnes'; did you mean illness?" in err


def test_row_without_a_checkpoint_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write(tmp_path / "results", [row()])
    status, _, err = verified(capsys, "tanh", "--results", results)
    assert status == 1
    assert "none of the 1 rows of 'tanh' has a kept checkpoint" in err
    status, out, _ = verified(capsys, "--results", results)
    assert status == 0
    assert "nothing to verify" in out


def test_table_2_is_meant_where_no_protocol_is_named() -> None:
    rows = [row(), row(protocol="table2_b")]
    assert matching(rows, "tanh/2021") == rows[:1]
    assert matching(rows, "table2_b/tanh") == rows[1:]
    assert [name_of(one) for one in rows] == [
        "patchtst/illness/tanh/2021", "table2_b/patchtst/illness/tanh/2021",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no row has all of these parts"):
        matching([row(), row(seed=1, value_activation="relu")], "relu/2021")


def test_forecasts_are_kept_as_numbers_and_drawn_from_them(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained.results, results)
    assert main(["leaderboard", "forecasts", "--results", str(results)]) == 0
    with (results / "pictures" / "forecasts.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    truth = [line for line in lines if not line["value_activation"]]
    assert [int(line["step"]) for line in truth] == list(range(-11, 13))
    assert {line["value_activation"] for line in lines} == {"", "identity", "tanh"}
    assert {line["seed"] for line in lines} == {"7"}
    # the middle of 182 windows: its horizon begins 91 rows behind the validation part
    import pandas as pd

    from tsattn.resources import datasets_dir

    file = pd.read_csv(datasets_dir() / "national_illness.csv")
    begin = 773 + 91
    assert float(truth[12]["value"]) == pytest.approx(file["OT"][begin], rel=1e-4)
    assert truth[12]["time"].startswith(str(pd.Timestamp(file["date"][begin]).date()))
    page = html(content_of(results))
    assert "test window 91, channel OT" in page
    assert page.count("<polyline") == 3


def test_committed_checkpoints_give_their_scores(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of every model: all of them take minutes, `tsattn leaderboard verify` does that."""
    results = root / "results"
    here = {info.name.casefold() for info in CATALOG.values() if info.embedded} | {"illness"}
    kept = {row.model: row for row in read_all(results) if row.checkpoint and row.dataset in here}
    if not kept:
        pytest.skip("no checkpoint is committed yet")
    assert "patchtst" in kept
    for one in kept.values():
        status, out, err = verified(capsys, "/".join(map(str, one.key)).replace("//", "/"),
                                    "--results", results)  # fmt: skip
        assert status == 0, out + err
        assert "1 of 1 rows are equal" in out or "is not installed" in out


def test_a_row_whose_data_are_not_here_is_not_scored_and_not_called_different(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained.results, results)
    first = next((results / "checkpoints" / "patchtst").glob("*identity-7*"))
    weights, record = read_weights(first)
    text = json.dumps({**record, "data": {**record["data"], "dataset": "ETTh2"}})
    save_file(weights, first, metadata={RECORD: text})
    digest = sha256(first.read_bytes()).hexdigest()
    (old,) = [r for r in read_all(results) if (r.value_activation, r.seed) == ("identity", 7)]
    file = results / "patchtst.csv"
    content = file.read_text(encoding="utf-8").replace(old.checkpoint_sha256, digest)
    file.write_text(content, encoding="utf-8")
    status, out, _ = verified(capsys, "--results", results)
    assert status == 0
    assert "not scored patchtst/illness/identity/7: dataset ETTh2: no file ETTh2.csv" in out
    assert "3 of 4 rows are equal, 1 not scored" in out
