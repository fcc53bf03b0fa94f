"""Trials as tasks of a Ray cluster, on one machine or many."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tsattn.errors import ConfigError, MissingExtraError
from tsattn.training.cluster import connect
from tsattn.tune.engine import Died, Ended, Event, Reported
from tsattn.tune.job import Job, Outcome, train

_POLL_SECONDS = 0.1


class RayEngine:
    """Ray tasks, each with its processors; the study stays with whoever drives this.

    Every node needs this package and, below ``--data.root`` or its own data folder, the data.

    Args:
        workers: how many trials run at a time.
        threads: processors and threads of each.
        gpus: of each.
        address: of a cluster; None begins one on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no cluster at that address, or none with a node large enough.
    """

    def __init__(
        self, workers: int, threads: int, *, gpus: float = 0.0, address: str | None = None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("--engine ray needs ray: pip install 'tsattn[ray]'") from error
        self._ray = ray
        self.workers = workers
        self._begun = not ray.is_initialized()
        if self._begun:
            connect(address, workers * threads)
        needs = {"CPU": float(threads), "GPU": gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(k, 0.0) >= v for k, v in needs.items()) for node in nodes):
            self.close()
            raise ConfigError(
                f"no node of the Ray cluster has {threads} CPUs and {gpus:g} GPUs for a trial; "
                "give fewer --threads or --gpus"
            )
        self._mailbox = self._open_mailbox()
        self._lost = False
        options = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0}
        self._train = ray.remote(_train).options(**options)
        self._threads = threads
        self._tasks: dict[Any, int] = {}

    def start(self, job: Job) -> None:
        """Hand a job to the cluster; its files stay nowhere."""
        task = self._train.remote(replace(job, folder=None), self._mailbox, self._threads)
        self._tasks[task] = job.number

    def events(self, timeout: float) -> Sequence[Event]:
        """Wait for reports, ends and deaths.

        Raises:
            ConfigError: the cluster is lost.
        """
        from ray.exceptions import ActorUnschedulableError, RayActorError

        try:
            return self._wait(timeout)
        except (ActorUnschedulableError, RayActorError) as error:
            return self._bury_all(error)

    def answer(self, number: int, *, stop: bool) -> None:
        """Answer a report."""
        self._mailbox.answer.remote(number, stop)

    def close(self) -> None:
        """Cancel what runs, and leave the cluster if it was begun here."""
        for task in getattr(self, "_tasks", {}):
            self._ray.cancel(task, force=True)
        self._tasks = {}
        if self._begun:
            self._ray.shutdown()

    def processes(self) -> dict[int, int]:
        """Return the process of every trial that has reported, or is about to train."""
        return self._ray.get(self._mailbox.processes.remote())

    def _open_mailbox(self) -> Any:
        """Begin a mailbox on the node of this process, so that no other node can take it along."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        return self._ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()

    def _take(self) -> list[Reported]:
        reports = self._ray.get(self._mailbox.take.remote())
        self._lost = False
        return [Reported(*report) for report in reports]

    def _wait(self, timeout: float) -> list[Event]:
        found: list[Event] = []
        waited = 0.0
        while not found and waited < timeout and self._tasks:
            reports = self._take()
            found += reports
            ready, _ = self._ray.wait(list(self._tasks), timeout=_POLL_SECONDS)
            # an end may have come between the reports and here: the last report goes first
            if ready and not reports:
                found += [*self._take(), *(self._end(task) for task in ready)]
            waited += _POLL_SECONDS
        return found

    def _bury_all(self, error: Exception) -> list[Event]:
        """End every trial, since none can report any more, and go on with a new mailbox."""
        if self._lost:
            raise ConfigError(
                f"the Ray cluster is lost: reports of trials cannot be taken ({error}). What has "
                "ended is kept: the same command goes on with the study once the cluster runs"
            ) from error
        self._lost = True
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            self._ray.cancel(task, force=True)
        self._mailbox = self._open_mailbox()
        reason = f"the Ray actor that takes its reports was lost: {type(error).__name__}"
        return [Died(number, reason) for number in tasks.values()]

    def _end(self, task: Any) -> Event:
        from ray.exceptions import RayError

        number = self._tasks.pop(task)
        try:
            outcome: Outcome = self._ray.get(task)
        except RayError as error:
            return Died(number, f"its Ray task was lost: {type(error).__name__}")
        return Ended(number, outcome)


class _Mailbox:
    """Stands between tasks and driver: takes reports, and holds each until it is answered."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int, float]] = []
        self.answers: dict[int, asyncio.Future[bool]] = {}
        self.pids: dict[int, int] = {}

    async def begin(self, number: int, pid: int) -> None:
        """Note the process of a trial."""
        self.pids[number] = pid

    async def report(self, number: int, epoch: int, loss: float) -> bool:
        """Hold a report until its answer, and return that."""
        self.answers[number] = asyncio.get_running_loop().create_future()
        self.reports.append((number, epoch, loss))
        return await self.answers[number]

    async def take(self) -> list[tuple[int, int, float]]:
        """Return the reports that were not taken yet."""
        taken, self.reports = self.reports, []
        return taken

    async def answer(self, number: int, stop: bool) -> None:
        """Let a trial go on, or stop."""
        waiting = self.answers.pop(number, None)
        if waiting and not waiting.done():
            waiting.set_result(stop)

    async def processes(self) -> dict[int, int]:
        """Return the process of every trial that has begun."""
        return dict(self.pids)


def _train(job: Job, mailbox: Any, threads: int) -> Outcome:
    import ray
    import torch

    torch.set_num_threads(threads)
    ray.get(mailbox.begin.remote(job.number, os.getpid()))
    return train(job, lambda epoch, loss: ray.get(mailbox.report.remote(job.number, epoch, loss)))
