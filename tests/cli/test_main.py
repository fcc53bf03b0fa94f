"""The command's words: help, misuse, and errors that say what is wrong and what would be right."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.tiny import fit_words
from tsattn import __version__
from tsattn.cli import main
from tsattn.errors import DataError

Said = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run the command, which must fail without a traceback, and return what it said.

    Its status is 1 where something cannot be done and 2 where the words themselves are wrong.
    """

    def run(*words: object, status: int | None = None) -> str:
        capsys.readouterr()
        try:
            given = main([str(word) for word in words])
        except SystemExit as leaving:
            given = leaving.code
        said = capsys.readouterr().err
        assert given == status if status else given in (1, 2), said
        assert said.startswith("error: ") or "unknown command" in said
        assert "Traceback" not in said
        return said

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Words that would train, if nothing were wrong with what is added."""
    return fit_words(tmp_path / "run")


def test_help_has_every_command_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command in ("fit", "test", "validate", "data", "moe", "doctor"):
        assert sum(line.startswith(f"  tsattn {command} ") for line in lines) >= 1, command


def test_without_words_the_help_is_shown_as_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "tsattn fit" in capsys.readouterr().out


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tsattn {__version__}\n"


def test_unknown_command_names_the_nearest(refused: Said) -> None:
    said = refused("tset", status=2)
    assert "unknown command 'tset'; did you mean test?" in said


def test_help_of_fit_explains_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["fit", "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--data.dataset", "--model.learning_rate", "--run_dir", "--trainer.max_epochs"):
        assert option in shown


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["--model.learning_rat", "1"], "model.learning_rate"),
        (["--model.network.value_activatoin", "tanh"], "value_activation"),
        (["--model.network.d_modle", "8"], "d_model"),
        (["--trainer.max_epoch", "3"], "trainer.max_epochs"),
        (["--data.horizn=3"], "data.horizon"),
        (["--early_stopping.patients", "3"], "early_stopping.patience"),
        (["--run_dri", "x"], "run_dir"),
        (["--seed_everthing", "x"], "seed_everything"),
        (["--model.schedule.warmpu", "0.2"], "warmup"),
        (["--model.network", "PatchTSTT"], "PatchTST"),
        (["--model.schedule", "OneCycl"], "OneCycle"),
        (["--epochs", "3"], "trainer.max_epochs"),
        (["--horizon", "3"], "data.horizon"),
        (["--data.missing", "interpolat"], "interpolate"),
    ],
)
def test_misspelt_word_fails_with_the_nearest_right_one(
    refused: Said, tiny: list[str], tmp_path: Path, words: list[str], nearest: str
) -> None:
    said = refused(*tiny, *words, status=2)
    assert f"did you mean '{nearest}'?" in said
    assert list(tmp_path.iterdir()) == []


def test_no_option_may_be_abbreviated(refused: Said, tiny: list[str]) -> None:
    said = refused(*tiny, "--model.learning", "1", status=2)
    assert "model.learning" in said


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("model: {learning_rat: 1}", "model.learning_rate"),
        ("data: {horizn: 3}", "data.horizon"),
        ("trainer: {max_epoch: 3}", "trainer.max_epochs"),
        ("modle: {learning_rate: 1}", "model.learning_rate"),
        ("model: {network: {class_path: PatchTSTT}}", "PatchTST"),
        ("model: {network: {init_args: {value_activatoin: tanh}}}", "value_activation"),
        ("model: {schedule: {class_path: OneCycl}}", "OneCycle"),
    ],
)
def test_misspelt_key_in_a_recipe_fails_with_the_nearest_right_one(
    refused: Said, tiny: list[str], tmp_path: Path, text: str, nearest: str
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    said = refused(*tiny, "--config", recipe, status=2)
    assert f"did you mean '{nearest}'?" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.batch_size", "many"], "data.batch_size"),
        (["--model.loss", "mze"], "'mse', 'mae', 'huber', 'quantile'"),
        (["--model.optimizer", "sgd"], "'adam', 'adamw'"),
        (["--trainer.max_epochs", "two"], "trainer.max_epochs"),
        (["--data.horizon", "abc"], "data.horizon: expected an integer or 'auto', got abc"),
        (["--data.known_future", "price"], "expected a list, for example '[price]'"),
    ],
)
def test_value_of_another_kind_fails_with_the_option_and_what_it_takes(
    refused: Said, tiny: list[str], words: list[str], said: str
) -> None:
    assert said in refused(*tiny, *words, status=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "own.csv"], "give the file as --data.dataset own.csv"),
        (["own.csv"], "give the file as --data.dataset own.csv"),
        (["illness"], "give the file as --data.dataset illness"),
        (["patchtst/etth1.yaml"], "give the recipe as --config patchtst/etth1.yaml"),
    ],
)
def test_file_in_the_wrong_place_is_answered_with_its_option(
    refused: Said, words: list[str], said: str
) -> None:
    assert refused("fit", *words, status=2).startswith(f"error: {said}\n")


def test_stray_word_is_not_taken_for_a_file(refused: Said, tiny: list[str]) -> None:
    said = refused(*tiny, "true", status=2)
    assert "unrecognized arguments: true" in said


def test_unknown_class_is_answered_with_the_known_ones_alone(
    refused: Said, tiny: list[str]
) -> None:
    said = refused(*tiny, "--model.network", "PatchTTS", status=2)
    assert said.startswith(
        "error: model.network: unknown class 'PatchTTS'\ndid you mean 'PatchTST'"
    )
    assert "PatchTST, EncoderDecoderTransformer" in refused(*tiny, "--model.network", "Nothing")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["data", "lst"], ["list, fetch, verify, describe", "did you mean 'list'?", "tsattn data"]),
        (["data"], ["expected one of list, fetch, verify, describe", "tsattn data --help"]),
        (["data", "list", "--roott", "x"], ["--roott", "'--root'?", "tsattn data list --help"]),
        (["data", "fetch"], ["missing: NAMES", "tsattn data fetch --help"]),
        (["data", "fetch", "etth11"], ["'etth11' (nearest: ETTh1"]),
        (["moe", "reportx"], ["unknown word 'reportx'", "'report'?", "tsattn moe --help"]),
        (["doctor", "--buidl"], ["--buidl", "'--build'?", "tsattn doctor --help"]),
        (["refit", "run", "--overwite"], ["--overwite", "'--overwrite'?", "tsattn refit --help"]),
        (["export", "run"], ["missing: --out", "tsattn export --help"]),
        (["calibrate"], ["missing: RUN", "tsattn calibrate --help"]),
        (["bench", "uncertanty"], ["run, plan, uncertainty", "'uncertainty'?", "tsattn bench"]),
        (
            ["bench", "run", "--wokers", "2"],
            ["--wokers 2", "'--workers'?", "tsattn bench run --help"],
        ),
        (["bench", "plan", "--only"], ["expected one argument", "tsattn bench plan --help"]),
        (["bench", "auto", "--round", "3"], ["--round 3", "'--rounds'?", "tsattn bench auto"]),
        (["leaderboard", "--chek"], ["--chek", "'--check'?", "tsattn leaderboard --help"]),
        (["compare", "a", "--outt", "b"], ["--outt b", "'--out'?", "tsattn compare --help"]),
        (["tune", "--config", "x"], ["missing: --space", "tsattn tune --help"]),
        (["bench"], ["memory, forecast, run, plan, uncertainty", "tsattn bench --help"]),
    ],
)
def test_misuse_of_any_command_is_answered_in_few_lines(
    refused: Said, words: list[str], lines: list[str]
) -> None:
    said = refused(*words).splitlines()
    assert len(said) == len(lines), said
    for line, part in zip(said, lines, strict=True):
        assert part in line


def test_help_of_doctor_is_no_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    shown = capsys.readouterr().out
    assert "Print the versions, devices" in shown
    assert "Args:" not in shown
    assert ">>>" not in shown


@pytest.mark.parametrize("words", [["--help"], ["bench", "--help"]])
def test_help_names_every_benchmark(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(words)
    shown = capsys.readouterr().out
    for name in ("kernels", "moe", "memory", "forecast", "run", "plan", "uncertainty"):
        assert re.search(rf"\b{name}\b", shown), name


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model.network.value_activation", "tanhh"], ["'tanhh'", "identity, relu, gelu"]),
        (["--model.network.value_activation", "os.system"], ["'os.system'", "expected one of"]),
        (["--data.dataset", "ETTh3"], ["'ETTh3'", "ETTh1", "weather"]),
        (["--data.dataset", "no/such.csv"], ["no/such.csv", "no file"]),
        (["--data.dataset", "traffic"], ["traffic", "tsattn data fetch traffic"]),
        (["--model.network.num_heads", "3"], ["d_model=8", "num_heads=3"]),
        (["--model.network.patch_length", "40"], ["40", "36"]),
        (["--data.batch_size", "0"], ["batch_size must be at least 1, got 0"]),
        (["--data.context", "5000"], ["5000", "rows", "--data.context"]),
        (["--data.calendar", "[hour]"], ["'hour'", "hour_of_day"]),
        (["--model.quantile", "1.5"], ["quantile", "1.5"]),
        (["--model.schedule.warmup", "2"], ["warmup", "2"]),
        (["--ckpt_path", "no.ckpt"], ["no checkpoint at no.ckpt"]),
        (["--trainer.precision", "8"], ["precision"]),
    ],
)
def test_setting_that_cannot_work_fails_in_words_and_writes_nothing(
    refused: Said, tiny: list[str], tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    said = refused(*tiny, *words)
    for part in expected:
        assert part in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU"
)
def test_recipe_for_a_gpu_says_that_there_is_none(
    refused: Said, tiny: list[str], tmp_path: Path
) -> None:
    said = refused(*tiny, "--config", "configs/trainer/gpu.yaml", status=1)
    assert "gpu" in said.lower()
    assert "tsattn doctor" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["fit", "test", "validate"])
def test_missing_recipe_names_the_nearest_shipped_one(refused: Said, command: str) -> None:
    said = refused(command, "--config", "configs/patchtst/eth1.yaml", status=1)
    assert "no recipe configs/patchtst/eth1.yaml" in said
    assert "did you mean patchtst/etth1.yaml?" in said


def test_missing_recipe_is_not_answered_with_all_of_them(refused: Said) -> None:
    said = refused("fit", "--config", "nope.yaml", status=1)
    assert "did you mean" not in said
    assert re.search(r"recipes are shipped in .*patchtst/ \(\d+\)", said)
    assert "patchtst/etth1.yaml" not in said
    said = refused("fit", "--config", "etth1", status=1)
    assert "did you mean dlinear/etth1.yaml or patchtst/etth1.yaml or transformer/" in said


def test_recipe_that_is_no_yaml_fails_with_the_place(refused: Said, tmp_path: Path) -> None:
    recipe = tmp_path / "broken.yaml"
    recipe.write_text("model: [1\n")
    said = refused("fit", "--config", recipe, "--data.dataset", "illness", status=2)
    assert "line 1" in said


def test_missing_dataset_is_asked_for(refused: Said) -> None:
    assert "data.dataset" in refused("fit", status=2)


@pytest.mark.parametrize(
    "name", ["configs/patchtst/illness.yaml", "patchtst/illness.yaml", "patchtst/illness"]
)
def test_shipped_recipe_is_found_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(["fit", "--config", name, "--print_config"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert "dataset: illness" in shown
    assert "learning_rate: 0.0025" in shown


def test_recipe_here_comes_before_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    own = tmp_path / "configs" / "patchtst" / "illness.yaml"
    own.parent.mkdir(parents=True)
    shipped = (root / "configs" / "patchtst" / "illness.yaml").read_text()
    own.write_text(shipped.replace("max_epochs: 100", "max_epochs: 17"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "--config", "configs/patchtst/illness.yaml", "--print_config"])
    assert "max_epochs: 17" in capsys.readouterr().out


def test_debug_variable_shows_where_an_error_came_from(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSATTN_DEBUG", "1")
    with pytest.raises(DataError):
        main([*tiny, "--data.dataset", "ETTh3"])
