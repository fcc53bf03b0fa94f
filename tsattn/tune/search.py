"""The loop of a study: ask for values, let a worker train, report, stop or finish, tell."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna import Study, Trial
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from tsattn.data.amounts import counted
from tsattn.errors import DataError, TsattnError
from tsattn.training.amounts import duration
from tsattn.tune.claims import (
    SEED,
    SIGN_SECONDS,
    fail_abandoned,
    first_of,
    proposals,
    retry,
    sign,
    sign_again,
)
from tsattn.tune.engine import Died, Ended, Engine, Reported
from tsattn.tune.identity import note_data
from tsattn.tune.job import Job

ERROR, SECONDS, EPOCHS, BEST_EPOCH, CONFIG = "error", "seconds", "epochs", "best_epoch", "config"
"""Attributes of a trial that is over."""

AGAIN = "mend the cause, then the same command with --retry-failed trains them again"
"""What to do about trials that failed."""

_ENOUGH_FAILED = 3

Say = Callable[[str], None]


@dataclass
class _Running:
    trial: Trial
    values: dict[str, Any]
    job: Job
    signed: float = field(default_factory=time.time)
    losses: list[float] = field(default_factory=list)


class NothingQueuedError(Exception):
    """Values are taken from a queue, and there are none."""


class SameFailureError(TsattnError):
    """The first trials all failed with one error, and so would all the others."""


class Search:
    """Runs trials until there are enough, whoever ran the others.

    Args:
        study: the study; this process alone writes into the trials that it starts.
        engine: trains.
        recipe: text of the recipe that every trial begins from.
        propose: draws a trial's values, or raises `NothingQueuedError`.
        words: turns a trial's values into overrides, its seed left out.
        seed: the recipe's seed; a configuration that comes again gets the next one.
        folder: where the files of trials lie; None keeps none.
        say: tells a person what happens.
        called: names a trial, of its number and values.
    """

    def __init__(
        self,
        study: Study,
        engine: Engine,
        recipe: str,
        *,
        propose: Callable[[Trial], dict[str, Any]],
        words: Callable[[dict[str, Any]], list[str]],
        seed: int,
        folder: Path | None,
        say: Say,
        called: Callable[[int, dict[str, Any]], str] | None = None,
    ) -> None:
        self.study = study
        self.engine = engine
        self.recipe = recipe
        self.propose = propose
        self.words = words
        self.seed = seed
        self.folder = folder
        self.say = say
        self.called = called or _trial
        self.wanted = 0
        self._running: dict[int, _Running] = {}
        self._trained = False
        self._failed: dict[int, str] = {}

    def run(self, trials: int) -> None:
        """Run until the study has that many trials, counting all it has already.

        Whatever ends this early (Ctrl-C, a storage that is gone) leaves the trials that were
        running to be tried again.

        Raises:
            SameFailureError: the first trials, three or as many as there are workers, failed with
                the same error before anything had finished an epoch.
            DataError: a trial was measured on other data than the study.
        """
        self.wanted = trials
        try:
            while self._fill() or self._running:
                for event in self.engine.events(timeout=SIGN_SECONDS / 3):
                    if isinstance(event, Reported):
                        self._report(event)
                    elif isinstance(event, Ended):
                        self._end(event)
                    else:
                        self._bury(event)
                self._sign()
        finally:
            self._give_up()

    def _fill(self) -> bool:
        """Start trials while there is room; whether one was started."""
        started = False
        while len(self._running) < self.engine.workers:
            for trial in fail_abandoned(self.study, self._running):
                self.say(f"trial {trial.number} was left unfinished: it is tried again")
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if not waiting and proposals(trials) >= self.wanted:
                break
            self._start()
            started = True
        return started

    def _start(self) -> None:
        trial = self.study.ask()
        sign(trial)
        try:
            values = self.propose(trial)
        except NothingQueuedError:  # another command was quicker
            self.study.tell(trial, state=TrialState.FAIL)
            return
        seed = trial.user_attrs.get(SEED)
        if seed is None:
            seed = self.seed + self._earlier(trial, values)
            trial.set_user_attr(SEED, seed)
        words = (*self.words(values), "--seed_everything", str(seed), "--trainer.devices", "1")
        folder = self.folder / f"{trial.number:04d}" if self.folder else None
        job = Job(trial.number, self.recipe, words, folder)
        self._running[trial.number] = _Running(trial, values, job)
        self.engine.start(job)

    def _earlier(self, trial: Trial, values: dict[str, Any]) -> int:
        """Return how many trials before this one have the same values."""
        others = self.study.get_trials(deepcopy=False)
        earlier = {first_of(other) for other in others if other.params == values}
        return sum(first < first_of(trial) for first in earlier)

    def _report(self, event: Reported) -> None:
        mine = self._running[event.number]
        mine.losses.append(event.loss)
        self._trained = True
        stop = True
        with contextlib.suppress(UpdateFinishedTrialError):  # given up by another command
            mine.trial.report(event.loss, event.epoch)
            stop = bool(mine.trial.should_prune())
        self.engine.answer(event.number, stop=stop)

    def _end(self, event: Ended) -> None:
        mine, outcome = self._running.pop(event.number), event.outcome
        self._note(mine, {SECONDS: outcome.seconds, CONFIG: outcome.config})
        epochs = len(mine.losses)
        self._require_same_data(mine, outcome.data)
        if outcome.status == "failed" or not mine.losses:
            error = outcome.error or "it ended without any epoch"
            self._fail(mine, error)
            self._refuse_to_go_on(mine, error)
        elif outcome.status == "stopped":
            self._tell(mine, TrialState.PRUNED)
            best = min(mine.losses)
            name = self.called(event.number, mine.values)
            self.say(f"{name} stopped after {counted(epochs, 'epoch')}, best {best:.4f}")
        else:
            self._tell(mine, TrialState.COMPLETE, min(mine.losses))
            name, loss = self.called(event.number, mine.values), min(mine.losses)
            took = f"{counted(epochs, 'epoch')}, {duration(outcome.seconds)}"
            self.say(f"{name}: validation loss {loss:.4f}, {took}")

    def _fail(self, mine: _Running, error: str) -> None:
        self._note(mine, {ERROR: error})
        self._tell(mine, TrialState.FAIL)
        self.say(f"{self.called(mine.trial.number, mine.values)} failed: {error}")

    def _require_same_data(self, mine: _Running, data: str | None) -> None:
        """Record a trial as failed whose loss cannot be compared, and end the search with it."""
        try:
            note_data(self.study, data)
        except DataError as error:
            self._fail(mine, str(error))
            name = self.called(mine.trial.number, mine.values)
            raise DataError(
                f"{name}: {error}. It is recorded as failed. Bring back the data that the study "
                "was begun with, here or on the nodes, then the same command with --retry-failed "
                "trains it again; or begin another study on the new data: another --study"
            ) from error

    def _bury(self, event: Died) -> None:
        mine = self._running.pop(event.number)
        self._note(mine, {ERROR: event.reason})
        self._tell(mine, TrialState.FAIL)
        again = retry(self.study, self._stored(event.number))
        what = "it is tried again" if again else "it was tried often enough"
        self.say(f"{self.called(event.number, mine.values)} failed: {event.reason}; {what}")
        if not again:
            self._refuse_to_go_on(mine, event.reason)

    def _refuse_to_go_on(self, mine: _Running, error: str) -> None:
        """Stop before a cause that is none of the trials' own has used all of them up."""
        self._failed[first_of(mine.trial)] = _in_common(error, mine.job)
        if self._trained or len(set(self._failed.values())) > 1:
            return
        if len(self._failed) >= max(_ENOUGH_FAILED, self.engine.workers):
            raise SameFailureError(
                f"the first {len(self._failed)} trials all failed with the same error, so no more "
                f"are begun: {error}. Their failures are recorded: {AGAIN}"
            )

    def _note(self, mine: _Running, attributes: dict[str, Any]) -> None:
        if mine.losses:
            best = mine.losses.index(min(mine.losses)) + 1
            attributes = {EPOCHS: len(mine.losses), BEST_EPOCH: best} | attributes
        with contextlib.suppress(UpdateFinishedTrialError):
            for name, value in attributes.items():
                mine.trial.set_user_attr(name, value)

    def _tell(self, mine: _Running, state: TrialState, loss: float | None = None) -> None:
        # where another command has given this trial up meanwhile, its retry counts
        self.study.tell(mine.trial, loss, state=state, skip_if_finished=True)

    def _sign(self) -> None:
        now = time.time()  # goes on while the machine sleeps, as the clocks of others do
        for mine in self._running.values():
            if not 0 <= now - mine.signed <= SIGN_SECONDS:
                mine.signed = now
                with contextlib.suppress(UpdateFinishedTrialError):
                    sign_again(mine.trial)

    def _stored(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _give_up(self) -> None:
        self.engine.close()
        mine, self._running = self._running, {}
        # where the storage is gone, whoever opens it next finds these trials abandoned
        with contextlib.suppress(OptunaError, SQLAlchemyError, OSError):
            for number, running in mine.items():
                self._note(running, {ERROR: "it was interrupted"})
                self._tell(running, TrialState.FAIL)
                retry(self.study, self._stored(number))


def _trial(number: int, values: dict[str, Any]) -> str:
    shown = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in values.values())
    return f"trial {number} ({', '.join(shown)})"


def _in_common(error: str, job: Job) -> str:
    """Return an error without what names the trial: its folder and its settings."""
    own = [" ".join(job.words)]
    if job.folder:
        own += [str(job.folder.resolve()), str(job.folder.absolute()), str(job.folder)]
    for text in filter(None, own):
        error = error.replace(text, "...")
    return error
