"""One malformed input through one command, and what became of it."""

import contextlib
import hashlib
import io
import os
import random
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests.fuzz import checkpoints, tables
from tests.fuzz.networks import HORIZON, Base, bases
from tsattn.cli.main import main
from tsattn.errors import TsattnError

LIMIT_SECONDS = 10.0
"""Of the processor, so that a loaded machine is no hang."""

OPTIONS = (
    ["--sort"], ["--new-series"], ["--missing", "interpolate"], ["--missing", "mask"],
    ["--missing", "error"], ["--duplicates", "first"], ["--duplicates", "last"],
    ["--duplicates", "mean"], ["--missing", "mask", "--gaps", "regularise"],
    ["--gaps", "regularise"], ["--time_zone", "Europe/Berlin"], ["--time_zone", "Mars/Base"],
    ["--day_first", "true"], ["--decimal", ","], ["--delimiter", ";"], ["--delimiter", "tab"],
    ["--layout", "long"], ["--layout", "wide"], ["--time_column", "a"],
)  # fmt: skip
ENDINGS = ("forecast", "refused", "misused")
"""How an input may end: a forecast of sound numbers, a message, or wrong usage of an option."""


class HangError(BaseException):
    """The time limit is over; no handler of errors catches it."""


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        kind: one of `ENDINGS`, or what must not happen: ``crash``, ``hang``, ``bad output``,
            ``replaced``, ``executed``.
        made: how the input was made.
        detail: the message, or the traceback.
        seconds: time of the processor.
    """

    kind: str
    made: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether this must not happen."""
        return self.kind not in ENDINGS


@dataclass(frozen=True)
class Prepared:
    """A sound checkpoint and a sound CSV file to begin from."""

    base: Base
    checkpoint: Path
    table: bytes


def prepare(folder: Path) -> tuple[Prepared, ...]:
    """Write the sound files that inputs are made of."""
    return tuple(
        Prepared(base, base.write(folder), base.frame.to_csv(index=False).encode())
        for base in bases()
    )


def run_input(number: int, seed: int, prepared: tuple[Prepared, ...], home: Path) -> Outcome:
    """Make input ``number`` of a seed, run a command on it, and judge what happened.

    Args:
        number: which input.
        seed: of the series of inputs.
        prepared: sound files.
        home: an empty folder for this input alone.
    """
    draw = random.Random(seed * 1_000_003 + number)
    start = draw.choice(prepared)
    data, checkpoint = home / "data.csv", start.checkpoint
    command = draw.choice(("forecast", "forecast", "backtest"))
    if draw.random() < 0.7:
        made = _make_table(draw, start, data)
    else:
        data.write_bytes(start.table)
        mutate = draw.choice(checkpoints.MUTATIONS)
        checkpoint = home / "bad.ckpt"
        checkpoint.write_bytes(mutate(start.checkpoint.read_bytes(), draw, home))
        made = f"{mutate.__name__} of a checkpoint"
    out = home / "out.csv"
    words = [command, "--ckpt", str(checkpoint), "--data", str(data), "--out", str(out)]
    if command == "backtest":
        words += ["--windows", draw.choice("13"), "--step", draw.choice("15")]
    if draw.random() < 0.5:
        words += [
            word for option in draw.sample(OPTIONS, draw.choice((1, 1, 2))) for word in option
        ]
    kept = draw.random() < 0.1
    if kept:
        out.write_text("keep me")
    said = f"{start.base.name}: {made}; {' '.join(words[:1] + words[7:])}"
    return _judge(words, said, home, out, kept=kept)


def _make_table(draw: random.Random, start: Prepared, file: Path) -> str:
    if draw.random() < 0.02:
        file.mkdir()
        return "a folder for a table"
    content, names = start.table, []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        mutate = draw.choice(tables.MUTATIONS)
        names.append(mutate.__name__)
        content = mutate(content, draw)
    file.write_bytes(content)
    return ", ".join(names)


def _judge(words: list[str], made: str, home: Path, out: Path, *, kept: bool) -> Outcome:
    before = _contents(home)
    begin = time.process_time()
    status, error = _call(words)
    seconds = time.process_time() - begin
    after = _contents(home)
    changed = sorted(name for name in before if before[name] != after.get(name))
    detail = "".join(traceback.format_exception(error)) if error else ""

    def outcome(kind: str, what: str = "") -> Outcome:
        return Outcome(kind, made, what or detail, seconds)

    if checkpoints.CANARY in after:
        return outcome("executed", "code of the checkpoint was executed")
    if changed:
        return outcome("replaced", f"changed: {', '.join(changed)}")
    if isinstance(error, HangError) or seconds > LIMIT_SECONDS:
        return outcome("hang")
    if isinstance(error, SystemExit):
        return outcome("misused" if error.code == 2 else "crash")
    if isinstance(error, TsattnError):
        left = sorted(after.keys() - before.keys())
        if left:
            return outcome("bad output", f"left behind: {', '.join(left)}")
        return outcome("refused" if str(error).strip() else "crash", str(error))
    if error is not None or status != 0:
        return outcome("crash")
    if kept:
        return outcome("replaced", "the output existed and the command says it went well")
    problem = _problem(out, words)
    return outcome("bad output" if problem else "forecast", problem)


def _call(words: list[str]) -> tuple[int | None, BaseException | None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            with _raising(), _limited():
                return main(words), None
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return None, error


@contextlib.contextmanager
def _raising() -> Iterator[None]:
    """Let errors through, which the command otherwise turns into messages."""
    before = os.environ.get("TSATTN_DEBUG")
    os.environ["TSATTN_DEBUG"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TSATTN_DEBUG"]
        else:
            os.environ["TSATTN_DEBUG"] = before


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError(f"more than {LIMIT_SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _contents(home: Path) -> dict[str, str]:
    return {
        path.relative_to(home).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.rglob("*")
        if path.is_file()
    }


def _problem(out: Path, words: list[str]) -> str:
    """Return what is wrong with an output, or nothing."""
    if not out.is_file():
        return "no output, and no message"
    frame = pd.read_csv(out)
    if not len(frame) or len(frame) % HORIZON:
        return f"{len(frame)} rows where a multiple of {HORIZON} is expected"
    if frame.isin([np.inf, -np.inf]).any(axis=None):
        return "infinite numbers"
    if words[0] == "forecast":
        empty = frame.columns[frame.isna().any()].tolist()
    else:  # MASE and WAPE may be undefined, and all scores where the truth is missing
        sound = ["mae", "smape"] if _takes_missing(words) else ["mse", "mae", "smape"]
        rows = frame if not _takes_missing(words) else frame.dropna(subset=["mse"])
        empty = [name for name in sound if rows[name].isna().any()]
    return f"no number in {', '.join(map(str, empty))}" if empty else ""


def _takes_missing(words: list[str]) -> bool:
    return "error" not in words and bool(
        {"interpolate", "mask"} & set(words) or {"treated", "filled"} & {Path(words[2]).stem}
    )
