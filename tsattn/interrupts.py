"""Ends that are asked for: SIGTERM as well as Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does.

    It is how ``kill``, systemd and the schedulers of clusters end a process, and the only polite
    way to end a job in the background of a script, which ignores SIGINT. Training needs none of
    this, Lightning does it. Outside the main thread, which alone can take signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        # None: a handler that Python did not install, and cannot put back
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
