"""`tsattn tune`: read, search, repeat, and write what was found."""

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import optuna
import torch
from jsonargparse import Namespace

from tsattn.console import IN_PIPE, open_console
from tsattn.data import load_panel, split_borders
from tsattn.data.amounts import counted
from tsattn.errors import ConfigError, DataError, MissingExtraError, TsattnError
from tsattn.files import write_atomically
from tsattn.interrupts import interruptible
from tsattn.options import CommandParser
from tsattn.training.datamodule import ForecastData
from tsattn.training.parsed import ParsedRecipe
from tsattn.training.result import as_json
from tsattn.tune import repeats
from tsattn.tune.claims import OF, retry_failed
from tsattn.tune.engine import Engine
from tsattn.tune.folder import REPEATS, TRIALS, StudyFolder
from tsattn.tune.identity import Identity, data_of, known_data
from tsattn.tune.local import LocalEngine
from tsattn.tune.ray_engine import RayEngine
from tsattn.tune.repeats import Comparison
from tsattn.tune.report import write_report
from tsattn.tune.sampling import PRUNERS, SeededTPE, make_pruner
from tsattn.tune.search import AGAIN, SameFailureError, Search
from tsattn.tune.space import Space, read_space
from tsattn.tune.storage import has_trials, is_begun, open_study, quiet, reaching, shown
from tsattn.tune.summary import best_recipe, show, summarise

_ENGINES = ("local", "ray")
_OF_A_RUN = ("ckpt_path", "estimate", "overwrite", "run_dir", "save_predictions")
_ALSO_FIT = ("config", "c", "seed_everything", "upcycle")
_AFTER_READING = ("data.batch_size", "data.calendar", "data.context", "data.eval_batch_size")
_ONE_PROCESS = "a trial is one process: leave out --trainer.strategy {}, and give --workers instead"


def tune(words: Sequence[str]) -> int:
    """Run ``tsattn tune`` as typed after that.

    Args:
        words: options of the study; everything else is a recipe or an override of it, as after
            ``tsattn fit``.

    Returns:
        The exit status: 0 done, 130 interrupted.

    Raises:
        ConfigError: an option, a space or a study that cannot work; nothing was changed.
        DataError: the recipe's data cannot be read here, and nothing was changed; or a trial was
            measured on other data than the study.
        ExistsError: the folder belongs to another study, or holds runs that the storage lacks.
        StorageError: the storage cannot be reached, is locked, or is none.
        SameFailureError: the first trials all failed with the same error.
    """
    own, fit = _split(words)
    given = _parser().parse_args(own)
    _require_counts(given)
    recipe = ParsedRecipe(fit)
    _require_one_process(recipe)
    space = read_space(given.space, recipe)
    name = given.study or _study_name(recipe, given.space)
    folder = Path(given.out or Path("runs") / f"tune-{name}")
    url = given.storage or f"sqlite:///{folder / 'study.db'}"
    pruner = make_pruner(given.pruner, recipe.settings["trainer"]["max_epochs"])
    mine = StudyFolder(folder, name, url)
    mine.require_free()
    # the nodes of a cluster have their own data: the trials say which
    data = None if given.address else _read_data(recipe, space)
    if not has_trials(url, name):
        mine.require_no_runs()
    with mine.claimed():
        study = open_study(url, name, Identity(space.describe(), recipe.text, data), pruner=pruner)
    study.sampler = SeededTPE(given.seed, study)
    with interruptible():
        return _Tuning(given, recipe, space, study, folder, url).run()


class _Tuning:
    def __init__(
        self,
        given: Namespace,
        recipe: ParsedRecipe,
        space: Space,
        study: optuna.Study,
        folder: Path,
        url: str,
    ) -> None:
        self.given = given
        self.recipe = recipe
        self.space = space
        self.study = study
        self.folder = folder
        self.url = url
        seed = recipe.settings["seed_everything"]
        self.seed = 2021 if isinstance(seed, bool) else int(seed)
        self.console = open_console(IN_PIPE)

    def run(self) -> int:
        self._say(f"study {self.study.study_name} in {shown(self.url)}; files in {self.folder}")
        try:
            with reaching(self.url), quiet():
                self._search()
                compared = self._repeat()
            return self._finish(compared)
        except (SameFailureError, DataError):
            with suppress(TsattnError), reaching(self.url), quiet():
                self._summarise(self._compared())
            raise
        except KeyboardInterrupt:
            self._say("\ninterrupted; the same command goes on with the study")
            return 130

    def _engine(self) -> Engine:
        given = self.given
        threads = given.threads or max(1, torch.get_num_threads() // given.workers)
        if given.engine == "ray":
            return RayEngine(given.workers, threads, gpus=given.gpus, address=given.address)
        return LocalEngine(given.workers, threads)

    def _search(self) -> None:
        self._retry_failed(self.study)
        Search(
            self.study,
            self._engine(),
            self.recipe.text,
            propose=self.space.suggest,
            words=self.space.overrides,
            seed=self.seed,
            folder=self.folder / TRIALS,
            say=self._say,
        ).run(self.given.trials)

    def _retry_failed(self, study: optuna.Study) -> None:
        if self.given.retry_failed and (count := retry_failed(study)):
            self._say(f"{count} failed trials of {study.study_name} are tried again")

    def _repeat(self) -> list[Comparison]:
        """Train the best settings again where that is asked for; earlier repeats count anyway."""
        found = repeats.contenders(self.study, self.space)
        if found and self.given.repeat_seeds:
            self._train_again(self._open_repeats(), found)
        return self._compared()

    def _open_repeats(self) -> optuna.Study:
        name = self.study.study_name + repeats.SUFFIX
        identity = Identity(self.space.describe(), self.recipe.text, known_data(self.study))
        return open_study(self.url, name, identity, pruner=make_pruner("none", 1))

    def _compared(self) -> list[Comparison]:
        """Return what all repeats so far say, whichever command trained them."""
        if not is_begun(self.url, self.study.study_name + repeats.SUFFIX):
            return []
        again = self._open_repeats()
        found = repeats.contenders(self.study, self.space, again)
        return repeats.compare(again, found, repeats.reference_of(found))

    def _train_again(self, again: optuna.Study, found: Sequence[repeats.Contender]) -> None:
        seeds = self.given.repeat_seeds
        repeats.queue_repeats(again, found, seeds, self.seed)
        each = counted(seeds, "seed")
        self._say(f"the best of each again: {counted(len(found), 'setting')} with {each} each")
        self._retry_failed(again)
        Search(
            again,
            self._engine(),
            self.recipe.text,
            propose=repeats.propose,
            words=lambda values: self.space.overrides(self._params(values[OF])),
            seed=self.seed,
            folder=self.folder / REPEATS,
            say=self._say,
            called=repeats.called,
        ).run(0)

    def _params(self, number: int) -> dict[str, Any]:
        """Return the values of a trial, which another command may have found just now."""
        return self.study.get_trials(deepcopy=False)[number].params

    def _summarise(self, compared: Sequence[Comparison]) -> dict[str, Any]:
        summary = summarise(self.study, self.space, compared)
        write_atomically(self.folder / "summary.json", as_json(summary))
        return summary

    def _finish(self, compared: Sequence[Comparison]) -> int:
        study, summary = self.study, self._summarise(compared)
        if summary["best"] is None:
            reasons = list(dict.fromkeys(failed["reason"] for failed in summary["failed"]))
            said = "they were stopped early or still run elsewhere"
            if reasons:
                said = f"{'; '.join(reasons[:3])}. Their failures are recorded: {AGAIN}"
            raise ConfigError(
                f"no trial of {study.study_name} came to its end, so none is best: {said}"
            )
        write_atomically(self.folder / "best.yaml", best_recipe(study, summary["best"]))
        show(summary, self.console)
        try:
            write_report(self.folder / "report.html", study, summary, compared)
            self._say(f"report: {self.folder / 'report.html'}")
        except MissingExtraError as error:
            self._say(f"no report: {error}")
        self._say(f"train and test the best: tsattn fit --config {self.folder / 'best.yaml'}")
        return 0

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="tsattn tune",
        description="Search for settings by validation loss; the test part is never scored. "
        "Recipes (--config) and overrides (--trainer.max_epochs 20) are given as after tsattn fit.",
    )
    add = parser.add_argument
    add("--space", type=str, required=True, help="file that says what varies: configs/tune/...")
    add("--trials", type=int, default=30, help="how many the study shall have in all, those that "
        "failed among them")  # fmt: skip
    add("--retry_failed", action="store_true", help="train again, with the same values and seed, "
        "what has failed so far: once its cause is mended")  # fmt: skip
    add("--storage", type=str | None, help="sqlite:///study.db (default: in the folder), "
        "journal:///study.log, or a database server")  # fmt: skip
    add("--study", type=str | None, help="its name; one that exists is resumed")
    add("--workers", type=int, default=1, help="trials at a time")
    add("--threads", type=int | None, help="of each; default: those of this machine, shared out")
    add("--repeat_seeds", type=int, default=0, help="seeds for the best settings of each choice")
    add("--pruner", type=str, default="median", help=", ".join(PRUNERS))
    add("--engine", type=str, default="local", help=", ".join(_ENGINES))
    add("--address", type=str | None, help="of a Ray cluster; default: one on this machine")
    add("--gpus", type=float, default=0.0, help="of each trial, with --engine ray")
    add("--seed", type=int, default=0, help="of what is proposed")
    add("--out", type=Path | None, help="folder for best.yaml, summary.json and report.html")
    return parser


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of the study, and what is meant for the trials."""
    known = {action.dest for action in _parser()._actions if action.option_strings}
    own: list[str] = []
    fit: list[str] = []
    into = fit
    for word in words:
        if word in ("-h", "--help"):
            return ["--help"], []
        if word.startswith("-") and not _is_number(word):
            flag, joined, value = word.partition("=")
            name = flag.lstrip("-")
            if name.replace("-", "_") in known:
                into = own
                word = f"--{name.replace('-', '_')}{joined}{value}"
            else:
                into = fit
                _require_for_trials(name, sorted(known))
        into.append(word)
    return own, fit


def _require_for_trials(name: str, known: Sequence[str]) -> None:
    if name in _OF_A_RUN:
        raise ConfigError(f"--{name} belongs to one run, not to a study; leave it out")
    if "." in name or name in _ALSO_FIT:
        return
    near = get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.6)
    hint = f"; did you mean --{near[0]}?" if near else "; see tsattn tune --help"
    raise ConfigError(f"unknown option --{name}{hint}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _require_counts(given: Namespace) -> None:
    for name, least in (("trials", 1), ("workers", 1), ("threads", 1), ("repeat_seeds", 0)):
        value = given[name]
        if value is not None and value < least:
            raise ConfigError(f"--{name} must be at least {least}, got {value}")
    if given.seed < 0:
        raise ConfigError(f"--seed must not be negative, got {given.seed}")
    if given.engine not in _ENGINES:
        raise ConfigError(f"unknown engine {given.engine!r}; expected one of {', '.join(_ENGINES)}")
    if given.pruner not in PRUNERS:
        raise ConfigError(f"unknown pruner {given.pruner!r}; expected one of {', '.join(PRUNERS)}")
    if given.engine == "local" and (given.address or given.gpus):
        raise ConfigError("--address and --gpus belong to --engine ray")


def _require_one_process(recipe: ParsedRecipe) -> None:
    strategy = str(recipe.settings["trainer"]["strategy"])
    if strategy.partition("_")[0] in ("ddp", "fsdp", "deepspeed"):
        raise ConfigError(_ONE_PROCESS.format(strategy))


def _study_name(recipe: ParsedRecipe, space: str) -> str:
    data = Path(recipe.settings["data"]["dataset"]).stem
    return f"{recipe.network.lower()}-{data}-{Path(space).stem}".lower()


def _read_data(recipe: ParsedRecipe, space: Space) -> str | None:
    """Read the data once, as every trial will, and return what identifies them.

    None where trials read them in several ways, one of which may fail.

    Raises:
        DataError: it is not here, or cannot be read.
        ConfigError: the context varies, and with it which series have validation windows.
    """
    keys = {key for p in space.parameters for bundle in p.settings.values() for key in bundle}
    if any(key.startswith("data.") and key not in _AFTER_READING for key in keys):
        return None
    data = ForecastData(**recipe.settings["data"])
    panel = load_panel(data.dataset, root=data.root, reading=data.reading)
    if panel.num_series == 1 or "data.context" not in keys:
        return data_of(panel)
    rows = [split_borders(n, 0, borders=data.borders).train[1] for n in panel.lengths]
    if space.largest("data.context") > min(rows):
        raise ConfigError(
            f"'data.context' cannot be tuned on the {panel.num_series} series of {panel.name}: "
            "short ones lose windows to a longer context, so that trials could not be compared; "
            "set it for the whole study with --data.context"
        )
    return data_of(panel)
