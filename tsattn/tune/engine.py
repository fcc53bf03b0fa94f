"""What runs the trials of a study: the contract of the engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tsattn.tune.job import Job, Outcome


@dataclass(frozen=True)
class Reported:
    """A trial has finished an epoch and waits for an answer."""

    number: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class Ended:
    """A trial is over, well or not."""

    number: int
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """The worker of a trial is gone, and cannot say why itself."""

    number: int
    reason: str


Event = Reported | Ended | Died


@runtime_checkable
class Engine(Protocol):
    """Runs jobs side by side. Who drives it owns the study; workers never open its storage."""

    workers: int

    def start(self, job: Job) -> None:
        """Begin a job; at most `workers` run at a time."""
        ...

    def events(self, timeout: float) -> Sequence[Event]:
        """Wait for something to happen, at most that many seconds."""
        ...

    def answer(self, number: int, *, stop: bool) -> None:
        """Answer a report: go on, or stop."""
        ...

    def close(self) -> None:
        """End every worker at once, whatever it is doing."""
        ...
