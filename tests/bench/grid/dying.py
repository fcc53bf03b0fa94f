"""What a cell's process may do wrong; imported by the processes that tests start."""

import os
import signal
from typing import Any

from tsattn.bench.grid.worker import BUSY


def killed(*_: Any) -> None:
    """End as a process that ran out of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def asleep(*_: Any) -> None:
    """Do nothing until somebody ends this process."""
    signal.pause()


def busy(*_: Any) -> None:
    """End as a process does that finds another one at its cell."""
    os._exit(BUSY)


def threads_told(cell: Any, folder: Any, threads: int, environment: dict[str, str]) -> None:
    """Write down which threads this process was given."""
    from tsattn.bench.grid.worker import begin

    begin(folder, threads, environment)
    import torch

    seen = (
        f"{torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']} {os.getpgid(0) == os.getpid()}"
    )
    print(f"threads {seen}", flush=True)
    os._exit(BUSY)
