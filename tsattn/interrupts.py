"""Ends that are asked for: Ctrl-C, and SIGTERM as well."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_ASKING = (signal.SIGINT, signal.SIGTERM)
_IGNORE = signal.SIG_IGN


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first Ctrl-C or SIGTERM raises `KeyboardInterrupt`; further ones are ignored.

    SIGTERM is how ``kill``, systemd and the schedulers of clusters end a process, and the only
    polite way to end a job in the background of a script, which ignores SIGINT. What is ended gets
    the time to end what it has begun, however impatient the one who asked.

    A signal that was ignored stays so. Outside the main thread, which alone can take signals,
    nothing changes. `lightning.pytorch.Trainer` has handlers of its own while it runs.
    """
    before = {asking: handler for asking, handler in _handlers().items() if handler != _IGNORE}

    def interrupt(*_: object) -> None:
        _install(dict.fromkeys(before, _IGNORE))
        raise KeyboardInterrupt

    _install(dict.fromkeys(before, interrupt))
    try:
        yield
    finally:
        _install(before)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Take back what is done meanwhile to the handlers of Ctrl-C and SIGTERM, as Ray does."""
    before = _handlers()
    try:
        yield
    finally:
        _install(before)


def _handlers() -> dict[signal.Signals, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {asking: signal.getsignal(asking) for asking in _ASKING}


def _install(handlers: Mapping[signal.Signals, Any]) -> None:
    for asking, handler in handlers.items():
        # None: not installed by Python, which cannot put it back
        signal.signal(asking, signal.SIG_DFL if handler is None else handler)
