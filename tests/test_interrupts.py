"""Ctrl-C and SIGTERM end what is interruptible, once, and only while it is."""

import signal
import threading
from collections.abc import Iterator

import pytest

from tsattn.interrupts import handlers_kept, interruptible

ASKING = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Let nothing be ignored, as SIGINT is where the tests run in the background of a script."""
    before = [signal.signal(asking, signal.default_int_handler) for asking in ASKING]
    yield
    for asking, handler in zip(ASKING, before, strict=True):
        signal.signal(asking, handler)


@pytest.mark.parametrize("asking", ASKING)
def test_a_signal_is_ctrl_c_within_and_what_it_was_afterwards(asking: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in ASKING]
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(asking)
    assert [signal.getsignal(each) for each in ASKING] == before


def test_who_asks_again_does_not_disturb_the_end() -> None:
    ended = []

    def impatient() -> None:
        with interruptible():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                for asking in ASKING:
                    signal.raise_signal(asking)
                ended.append("workers")

    with pytest.raises(KeyboardInterrupt):
        impatient()
    assert ended == ["workers"]


def test_without_a_signal_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("asking", ASKING)
def test_what_was_ignored_is_ignored(asking: signal.Signals) -> None:
    signal.signal(asking, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(asking)
    assert signal.getsignal(asking) == signal.SIG_IGN


def test_another_thread_runs_without_signals() -> None:
    seen = []

    def body() -> None:
        with interruptible(), handlers_kept():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]


def test_handlers_of_others_are_taken_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with handlers_kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) == before
