"""Exports: the same forecasts as the run, whole or not there at all, and a card that says all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from tests.forecast.conftest import Train
from tests.forecast.made import long_frame, wide_frame
from tests.training.tiny import Finished
from tsattn.cli import main
from tsattn.errors import CheckpointError, ConfigError, ExistsError
from tsattn.forecast import Forecaster
from tsattn.forecast.export import export
from tsattn.models import EncoderDecoderTransformer
from tsattn.training import load_network
from tsattn.training.artifact import is_artifact, read_artifact, read_record
from tsattn.training.checkpoint import RECORD, describe_network, read_checkpoint
from tsattn.training.result import as_json


@pytest.fixture(scope="session")
def exported(illness: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on Illness as an export; change nothing."""
    out = tmp_path_factory.mktemp("exports") / "illness model"
    export(illness.folder.path, out)
    return out


def test_export_forecasts_and_scores_exactly_as_the_run(
    exported: Path, forecaster: Forecaster, illness_frame: pd.DataFrame
) -> None:
    again = Forecaster.load(exported)
    pd.testing.assert_frame_equal(
        again.predict(illness_frame), forecaster.predict(illness_frame), check_exact=True
    )
    bands = [one.predict(illness_frame, [80, 95]) for one in (again, forecaster)]
    assert "OT-lo-95" in bands[0]
    pd.testing.assert_frame_equal(bands[0], bands[1], check_exact=True)
    ours, theirs = (
        one.backtest(illness_frame, 3, 2, levels=[80]).scores() for one in (again, forecaster)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_export_does_not_know_how_to_train_again(
    exported: Path, illness_frame: pd.DataFrame
) -> None:
    with pytest.raises(ConfigError, match="run folder"):
        Forecaster.load(exported).backtest(illness_frame, refit=True)


def test_commands_take_an_export_in_the_place_of_a_run(
    illness: Finished, exported: Path, root: Path, tmp_path: Path
) -> None:
    data = root / "datasets" / "national_illness.csv"
    for ckpt in (illness.folder.path, exported):
        given = ["--ckpt", str(ckpt), "--data", str(data), "--out"]
        assert main(["forecast", *given, str(tmp_path / f"f {ckpt.name}.csv")]) == 0
        assert main(["backtest", *given, str(tmp_path / f"b {ckpt.name}.csv")]) == 0
    for kind in "fb":
        ours, theirs = (
            (tmp_path / f"{kind} {name}.csv").read_bytes()
            for name in (illness.folder.path.name, exported.name)
        )
        assert ours == theirs


def test_weights_and_record_come_back_bit_for_bit(illness: Finished, exported: Path) -> None:
    record, weights = read_artifact(exported)
    network = load_network(illness.folder.best)
    assert weights.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(weights[name], value)
        assert weights[name].dtype == value.dtype
    assert record["network"] == describe_network(network)
    assert record["data"]["scaler_mean"].dtype == torch.float64
    assert read_record(exported)["result"] == json.loads(as_json(illness.result))


@pytest.mark.parametrize("layout", ["long", "calendar"])
def test_long_tables_and_calendars_travel_too(train: Train, tmp_path: Path, layout: str) -> None:
    frame = long_frame() if layout == "long" else wide_frame()
    file = train(frame) if layout == "long" else train(
        frame,
        calendar=["hour_of_day", "day_of_week"],
        build=lambda data: EncoderDecoderTransformer(
            3, 12, 4, d_model=8, num_heads=2, d_ff=8, calendar_features=2
        ),
    )  # fmt: skip
    export(file, tmp_path / "out")
    expected = Forecaster.load(file).predict(frame)
    again = Forecaster.load(tmp_path / "out").predict(frame)
    pd.testing.assert_frame_equal(again, expected, check_exact=True)
    assert "without its run folder" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_same_run_gives_the_same_weights_file_and_no_place_of_this_machine(
    illness: Finished, exported: Path, tmp_path: Path
) -> None:
    export(illness.folder.path, tmp_path / "again")
    first, second = (read_record(one)["files"] for one in (exported, tmp_path / "again"))
    assert first == second
    for file in exported.iterdir():
        content = file.read_bytes()
        for place in (illness.folder.path, Path.home(), Path(__file__).parents[2]):
            assert str(place).encode() not in content


def test_nothing_is_replaced_unasked(illness: Finished, tmp_path: Path) -> None:
    run, out = illness.folder.path, tmp_path / "out"
    made = export(run, out)
    with pytest.raises(ExistsError, match="--overwrite"):
        export(run, out)
    (out / "README.md").write_text("mine", encoding="utf-8")
    again = export(run, out, overwrite=True)
    assert again.fingerprint == made.fingerprint
    assert (out / "README.md").read_text(encoding="utf-8") != "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work", encoding="utf-8")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(out)
    for taken in ("other", "file", "link"):
        with pytest.raises(ExistsError, match="is no export"):
            export(run, tmp_path / taken, overwrite=True)
    with pytest.raises(ConfigError, match="holds what is to be exported"):
        export(run, run, overwrite=True)
    with pytest.raises(ConfigError, match="holds what is to be exported"):
        export(run, run.parent, overwrite=True)
    (tmp_path / "empty").mkdir()
    export(run, tmp_path / "empty")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out", "other", "file", "link", "empty"}


def test_what_is_no_run_is_refused_before_anything_is_written(
    exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="is an export already"):
        export(exported, out)
    with pytest.raises(CheckpointError, match=r"folder without checkpoints/best\.ckpt"):
        export(tmp_path, tmp_path / "below" / "out")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        export(tmp_path / "nothing.ckpt", out)
    assert main(["export", str(tmp_path / "nothing.ckpt"), "--out", str(out)]) == 1
    assert list(tmp_path.iterdir()) == []


def test_export_is_no_checkpoint_to_go_on_from(exported: Path) -> None:
    with pytest.raises(CheckpointError, match="it is an export, for tsattn forecast and backtest"):
        read_checkpoint(exported)


def test_failure_on_the_way_leaves_nothing(
    illness: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tsattn.forecast.export._flush", full)
    with pytest.raises(OSError, match="No space"):
        export(illness.folder.path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_old_export_stays_where_the_new_one_cannot_take_its_place(
    illness: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(illness.folder.path, out)
    (out / "README.md").write_text("mine", encoding="utf-8")
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self.name == f".out.unfinished-{os.getpid()}":
            raise OSError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        export(illness.folder.path, out, overwrite=True)
    assert (out / "README.md").read_text(encoding="utf-8") == "mine"
    assert list(tmp_path.iterdir()) == [out]


KILLED = """
import sys, time
from pathlib import Path
from tsattn.forecast import export as exports
from tsattn.training import artifact, tensor_file

stage, run, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def stop(*given, **named):
    print("here", flush=True)
    time.sleep(300)

if stage == "weights":
    tensor_file.Digest.of = stop  # weights are written, the record is not
elif stage == "record":
    exports._flush = stop  # everything is written, the folder has no name yet
else:
    Path.replace = (lambda replace: lambda self, target: (
        stop() if ".unfinished" in self.name and Path(target) == out else replace(self, target)
    ))(Path.replace)
exports.export(run, out, overwrite=True)
"""


@pytest.mark.parametrize("stage", ["weights", "record", "name"])
def test_killed_export_leaves_no_folder_that_loads(
    illness: Finished, tmp_path: Path, stage: str
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(KILLED, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script), stage, str(illness.folder.path), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    with pytest.raises(CheckpointError, match=r"interrupted|folder without"):
        Forecaster.load(left)
    left.with_name(f"{left.name}-replaced").mkdir()  # what a kill while replacing would leave
    export(illness.folder.path, out)  # and the next one clears it away
    assert {path.name for path in tmp_path.iterdir()} == {"script.py", "out"}


def test_card_says_what_the_run_says(illness: Finished, exported: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    said = yaml.safe_load(header)
    assert said["library_name"] == "tsattn"
    assert said["datasets"] == ["illness"]
    metrics = said["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == illness.result["test"]["mse"]
    result = illness.result
    for fact in (
        result["dataset"]["sha256"],
        f"| rows | {result['dataset']['rows']} |",
        "% WEIGHTED ILI",
        f"{result['test']['mse']:.4g}",
        f"{result['floors']['last_value']['mse']:.4g}",
        "| step | 7 d |",
        "value_activation: tanh",
        f"seed: {result['seed']}",
        result["device"].split(",")[0],
        f"torch {result['versions']['torch']}",
        f"Split-conformal intervals of 5 to {result['conformal']['highest_level']:g} percent",
        'Forecaster.load("illness_model")',
        "was not tested",
        "Test windows begin at every row",
    ):
        assert fact.replace("_", "\\_") in body or fact in body, fact
    assert "Refitted" not in body
    assert "Point forecasts only" not in body


def test_hub_reads_the_header_of_the_card(exported: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(exported / "README.md")
    assert card.data.to_dict()["library_name"] == "tsattn"
    (mse, mae) = card.data.eval_results
    assert (mse.metric_type, mae.metric_type) == ("mse", "mae")


def test_names_of_channels_cannot_break_the_card_or_the_header(
    train: Train, tmp_path: Path
) -> None:
    frame = wide_frame().rename(columns={"a": "a|b\n---\n# x", "b": "<script>"})
    export(train(frame), tmp_path / "--- evil: 'name'")
    text = (tmp_path / "--- evil: 'name'" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---\n", 2)[1])["library_name"] == "tsattn"
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\n# x" not in text


def test_refitted_run_tells_of_both_and_not_where_the_other_one_lay(
    illness: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "refitted"
    shutil.copytree(illness.folder.path, run)
    content = read_checkpoint(run / "checkpoints" / "best.ckpt")
    test = {"mse": 1.25, "mae": 0.5, "windows_scored": 182}
    content[RECORD]["refit"] = {"of": "/home/me/runs/first", "epochs": 2, "validated_test": test}
    torch.save(content, run / "checkpoints" / "best.ckpt")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    kept = {"test": test, "best_epoch": 2, "floors": result["floors"], "limits": {"max_steps": 3}}
    kept["dataset"] = {"name": "older", "sha256": "0" * 64}
    for key in ("test", "floors", "as_published", "limits", "best_epoch"):
        result.pop(key)
    result |= {"refit_of": "/home/me/runs/first", "validated": kept}
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    out = tmp_path / "out"
    export(run, out)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "## Refitted" in text
    assert "| the validated run, test | 1.25 | 0.5 |" in text
    assert "for the 2 epochs" in text
    assert "| floor: last value |" in text
    assert f"They are of older (sha256 `{'0' * 64}`), the file of the validated run" in text
    assert "The training was cut short by limits" in text
    (index,) = yaml.safe_load(text.split("---\n", 2)[1])["model-index"]
    assert index["name"] == "out"
    assert index["results"][0]["dataset"]["name"] == "older"
    record, _ = read_artifact(out)
    assert record["refit"] == {"of": "first", "epochs": 2, "validated_test": test}
    assert read_record(out)["result"]["refit_of"] == "first"
    assert not any(b"/home/me" in file.read_bytes() for file in out.iterdir())


def test_command_says_what_it_wrote(
    illness: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    assert main(["export", str(illness.folder.path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"fingerprint {read_record(out)['checksum']}\n{out}\n" in said
    assert is_artifact(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "model.safetensors", "record.json",
    ]  # fmt: skip
