"""The process of one cell: ``python -m tsattn.bench.grid.worker``, ordered about on its input.

The first line of the input is the cell as JSON. The input then stays open as long as whoever wants
the cell lives; when it closes, this process ends at once, with all that it started. Its last epoch
is on disk.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from typing import Any

from tsattn.bench.grid.cells import Cell
from tsattn.bench.rows import Key, Row

BUSY = 75
"""Exit status: another process is at this cell."""


def order(cell: Cell) -> str:
    """Write a cell as the line that `main` reads."""
    return json.dumps(asdict(cell)) + "\n"


def cell_of(line: str) -> Cell:
    """Read what `order` wrote."""
    given: dict[str, Any] = json.loads(line)
    return Cell(**(given | {"key": Key(*given["key"]), "words": tuple(given["words"])}))


def row_of(text: str) -> Row:
    """Read a row out of an outcome."""
    return Row(**json.loads(text))


def main() -> int:
    """Run the cell and leave its row in its folder; 0, or `BUSY`."""
    cell = cell_of(sys.stdin.readline())
    threading.Thread(target=_end_with_the_input, daemon=True).start()

    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    from tsattn.bench.grid.cell import CellBusyError, CellFolder, run_cell
    from tsattn.training.folder import write_atomically

    folder = CellFolder.of(cell.key)
    try:
        row = run_cell(cell, folder)
    except CellBusyError:
        return BUSY
    write_atomically(folder.outcome, json.dumps(asdict(row)))  # pyright: ignore[reportArgumentType]
    return 0


def _end_with_the_input() -> None:
    while sys.stdin.buffer.raw.read(1):  # pyright: ignore[reportAttributeAccessIssue]
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
