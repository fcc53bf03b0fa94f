"""An engine that trains nothing: what a trial would report is written down beforehand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import yaml

from tsattn.tune.engine import Died, Ended, Event, Reported
from tsattn.tune.job import Job, Outcome

Script = Callable[[dict[str, str], Job], Sequence[float | str]]
"""From a job's overrides to what it does: losses, then perhaps "dies" or what went wrong."""


class FakeEngine:
    """Reports one epoch of every job in turn."""

    def __init__(
        self, script: Script, workers: int = 1, data: Callable[[int], str | None] = lambda _: None
    ) -> None:
        self.script = script
        self.workers = workers
        self.data = data
        self.jobs: list[Job] = []
        self.stopped: dict[int, int] = {}
        self.closed = False
        self._left: dict[int, list[float | str]] = {}
        self._done: dict[int, int] = {}

    def start(self, job: Job) -> None:
        assert len(self._left) < self.workers
        self.jobs.append(job)
        self._left[job.number] = list(self.script(overrides(job), job))
        self._done[job.number] = 0

    def events(self, timeout: float) -> Sequence[Event]:
        return [self._step(number) for number in list(self._left)]

    def _step(self, number: int) -> Event:
        left = self._left[number]
        if not left or isinstance(left[0], str):
            del self._left[number]
            said = str(left[0]) if left else ""
            if said == "dies":
                return Died(number, "its process was ended by SIGKILL")
            return self._end(number, "failed" if said else "done", said)
        if number in self.stopped:
            del self._left[number]
            return self._end(number, "stopped", "")
        self._done[number] += 1
        return Reported(number, self._done[number], float(left.pop(0)))

    def _end(self, number: int, status: Literal["done", "stopped", "failed"], said: str) -> Ended:
        return Ended(number, Outcome(status, said, config(number), 1.0, self.data(number)))

    def answer(self, number: int, *, stop: bool) -> None:
        if stop:
            self.stopped[number] = self._done[number]
            self._left[number] = self._left[number] or [float("nan")]

    def close(self) -> None:
        self.closed = True
        self._left.clear()


def overrides(job: Job) -> dict[str, str]:
    """Return a job's words by key."""
    words = list(job.words)
    return {
        key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2], strict=True)
    }


def config(number: int) -> str:
    """Return what stands for the recipe of a trial."""
    return f"# made from: tiny.yaml\n{yaml.safe_dump({'number': number})}"


SPACE = """
value_activation: {type: categorical, choices: [identity, tanh, relu]}
learning_rate: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
"""


def write_space(folder: Path, text: str = SPACE) -> str:
    """Write a space and return its path."""
    file = folder / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)
