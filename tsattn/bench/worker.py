"""Contenders that are timed in processes of their own, as people run them.

What one contender leaves behind (freed memory that the next one need not fetch from the system,
threads, tuned libraries) then helps or hinders no other. They still take turns: a process works
only while it is asked for a sample.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from multiprocessing.connection import Connection

from tsattn.bench.contenders import Runs, contender, runs_of
from tsattn.bench.recipes import Recipe
from tsattn.bench.timing import repeated, steady
from tsattn.errors import TsattnError

PHASES = ("step", "forward", "backward", "evaluation", "one window")
SAMPLE_SECONDS = 0.4
"""A sample repeats what is timed until about this time has passed, as training would."""
_SECONDS_TO_STOP = 5


class WorkerError(TsattnError):
    """The process of a contender failed."""


class Worker:
    """A contender in a process of its own.

    Args:
        recipe: what it trains.
        name: who it is, see `tsattn.bench.train.names_of`.
        threads: threads of torch.
    """

    def __init__(self, recipe: Recipe, name: str, threads: int) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, recipe, name, threads), daemon=True
        )
        self._process.start()
        theirs.close()

    def sample(self, phase: str) -> float:
        """Run a phase for about `SAMPLE_SECONDS` and return the seconds of one run.

        Raises:
            WorkerError: the process failed; the message has the reason.
        """
        try:
            self._connection.send(phase)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(
                f"{self.name}: its process ended in phase {phase!r}; too little memory?"
            ) from error
        if isinstance(answer, str):
            raise WorkerError(f"{self.name}: {answer}")
        return answer

    def stop(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(_SECONDS_TO_STOP)
        self._process.kill()


@contextmanager
def workers(recipe: Recipe, names: Sequence[str], threads: int) -> Iterator[dict[str, Worker]]:
    """Start a process for every contender; all are stopped at the end."""
    team: dict[str, Worker] = {}
    try:
        for name in names:
            team[name] = Worker(recipe, name, threads)
        yield team
    finally:
        for worker in team.values():
            worker.stop()


def _work(connection: Connection, recipe: Recipe, name: str, threads: int) -> None:
    """Answer every phase with the seconds of one run, until the other side hangs up."""
    contestant = _Contestant(recipe, name)
    with steady(threads):
        while True:
            try:
                phase = connection.recv()
            except EOFError:
                return
            try:
                connection.send(contestant.sample(phase))
            except Exception as error:
                connection.send(f"{type(error).__name__}: {error}")


class _Contestant:
    def __init__(self, recipe: Recipe, name: str) -> None:
        self.recipe, self.name = recipe, name
        self._runs: dict[int, Runs] = {}
        self._times: dict[str, int] = {}

    def sample(self, phase: str) -> float:
        run, before = self._phase(phase)
        if phase in self._times:
            return repeated(run, self._times[phase], before=before)
        repeated(run, 1, before=before)  # the first run builds and fetches
        seconds = repeated(run, 1, before=before)
        self._times[phase] = max(1, ceil(SAMPLE_SECONDS / seconds))
        return seconds

    def _phase(self, phase: str) -> tuple[Callable[[], None], Callable[[], None] | None]:
        if phase == "one window":
            return self._built(1)["evaluation"], None
        runs = self._built(self.recipe.batch)
        return runs[phase], runs["loss"] if phase == "backward" else None

    def _built(self, windows: int) -> Runs:
        if windows not in self._runs:
            made = contender(self.recipe.with_batch(windows), self.name)
            self._runs[windows] = runs_of(made, self.name.rsplit(" ", 1)[1])
        return self._runs[windows]
