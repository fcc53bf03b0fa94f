"""The process of one cell.

It is forked from a server that has imported everything, so that a cell does not wait for its
libraries; where there is no such server, it imports them itself. When whoever wanted the cell dies,
this process ends at once, with all that it started; its last epoch is on disk.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing import parent_process
from typing import Any

from tsattn.bench.grid.cells import Cell
from tsattn.bench.grid.folder import CellFolder
from tsattn.bench.rows import Row
from tsattn.files import write_atomically

BUSY = 75
"""Exit status: another process is at this cell."""


def work(cell: Cell, folder: CellFolder, threads: int, environment: Mapping[str, str]) -> None:
    """Run a cell and leave its row in its folder; exits with `BUSY` where another process does.

    Args:
        cell: the cell.
        folder: where it lives.
        threads: threads of torch.
        environment: variables of the process; a server has those of the time when it was started.
    """
    begin(folder, threads, environment)
    from tsattn.bench.grid.cell import CellBusyError, run_cell  # a server has it already

    try:
        row = run_cell(cell, folder)
    except CellBusyError:
        sys.exit(BUSY)
    write_atomically(folder.outcome, json.dumps(asdict(row)))  # pyright: ignore[reportArgumentType]


def begin(folder: CellFolder, threads: int, environment: Mapping[str, str]) -> None:
    """Make this process one of its own: log, group, threads, variables, and an end with its parent.

    Args:
        folder: where its log goes.
        threads: threads of torch.
        environment: its variables.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is for whoever started this
    with folder.log.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def read_outcome(folder: CellFolder) -> Row:
    """Return the row that `work` left."""
    given: dict[str, Any] = json.loads(folder.outcome.read_text(encoding="utf-8"))
    return Row(**given)


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
