"""Which running trials somebody still works on, and a second try for those that nobody does.

Whoever starts a trial signs it with the machine and the process, and again every half minute. A
trial is given up where its process is gone from this machine, or where its signature is older than
five minutes: the number of a process that is gone may be another's by now, and processes of other
machines are not seen. This works with every storage, a journal included.
"""

import os
import platform
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from tsattn.tune.sampling import RETRY_OF

SIGN_SECONDS = 30.0
GRACE_SECONDS = 300.0
MOST_RETRIES = 2
SEED, OF = "seed", "of"
"""Attributes that a trial may be queued with: its seed, and which settings it repeats."""

_MACHINE, _PROCESS, _SIGNED = "machine", "process", "signed"


def sign(trial: Trial) -> None:
    """Note that this process works on a trial."""
    trial.set_user_attr(_MACHINE, machine())
    trial.set_user_attr(_PROCESS, os.getpid())
    sign_again(trial)


def sign_again(trial: Trial) -> None:
    """Note that this process still works on a trial."""
    trial.set_user_attr(_SIGNED, time.time())


def machine() -> str:
    """Return a name that two machines, two boots or two containers do not share."""
    parts = [platform.node()]
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.is_file():
        parts.append(boot.read_text(encoding="ascii").strip())
    if space.is_symlink():
        parts.append(str(space.readlink()))
    return " ".join(parts)


def is_abandoned(trial: FrozenTrial, mine: Collection[int] = ()) -> bool:
    """Whether nobody works on a running trial any more.

    Args:
        trial: the trial.
        mine: numbers of those that this process works on.
    """
    if trial.number in mine:
        return False
    attributes = trial.user_attrs
    if attributes.get(_MACHINE) == machine() and os.name == "posix":
        process = int(attributes.get(_PROCESS, 0))
        if process == os.getpid() or not _is_alive(process):
            return True
    begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - max(begun, float(attributes.get(_SIGNED, 0.0))) > GRACE_SECONDS


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process > 0


def fail_abandoned(study: Study, mine: Collection[int] = ()) -> list[FrozenTrial]:
    """Record every abandoned trial as failed, queue it once more, and return them."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    found = [trial for trial in running if is_abandoned(trial, mine)]
    for trial in found:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        retry(study, trial)
    return found


def retry(study: Study, trial: FrozenTrial) -> bool:
    """Queue a trial again whose worker died, with its values and its seed; twice at most.

    Returns:
        Whether it was queued.
    """
    tries = _tries(study.get_trials(deepcopy=False))[first_of(trial)]
    if len(tries) > MOST_RETRIES:
        return False
    _queue(study, tries)
    return True


def retry_failed(study: Study) -> int:
    """Queue every trial again all of whose tries failed, with its values and its seed.

    The failures stay recorded. A trial without values, which never began, is left out.

    Returns:
        How many were queued.
    """
    failed = [
        tries
        for tries in _tries(study.get_trials(deepcopy=False)).values()
        if all(trial.state == TrialState.FAIL for trial in tries) and any(map(values_of, tries))
    ]
    for tries in failed:
        _queue(study, tries)
    return len(failed)


def values_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's values: those that were drawn, and those it was queued with."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def _tries(trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """Return the tries of every trial, by the number of the first."""
    tries: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        tries.setdefault(first_of(trial), []).append(trial)
    return tries


def _queue(study: Study, tries: Sequence[FrozenTrial]) -> None:
    """Queue once more what the tries were; one that ended early may know less than the others."""
    known = max(tries, key=lambda trial: (len(values_of(trial)), SEED in trial.user_attrs))
    kept = {name: known.user_attrs[name] for name in (SEED, OF) if name in known.user_attrs}
    study.enqueue_trial(values_of(known), user_attrs={RETRY_OF: first_of(known), **kept})


def first_of(trial: FrozenTrial | Trial) -> int:
    """Return the number of the trial that this one repeats, or its own."""
    return int(trial.user_attrs.get(RETRY_OF, trial.number))


def proposals(trials: Sequence[FrozenTrial]) -> int:
    """Return how many different trials there are; a retry is no other trial."""
    return len({first_of(trial) for trial in trials})
