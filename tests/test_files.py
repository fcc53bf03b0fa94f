"""A file is replaced whole or not at all, whoever writes, fails or is killed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tsattn.files import is_unfinished, replacing, write_atomically

KILLED = """
import os, signal, sys
from pathlib import Path
from tsattn.files import replacing

with replacing(Path(sys.argv[1])) as file:
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_writers_at_once_neither_fail_nor_mix(tmp_path: Path) -> None:
    path, writers = tmp_path / "measured.json", 8
    together = Barrier(writers, timeout=60)

    def write(letter: str) -> None:
        for _ in range(40):
            together.wait()
            write_atomically(path, letter * 5000)
            there = path.read_text(encoding="utf-8")
            assert len(there) == 5000
            assert len(set(there)) == 1

    with ThreadPoolExecutor(writers) as pool:
        for done in [pool.submit(write, letter) for letter in "abcdefgh"]:
            done.result()
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("before", encoding="utf-8")

    def fail(file: Path) -> None:
        file.write_text("half", encoding="utf-8")
        assert list(tmp_path.glob("*.csv")) == [path]
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), replacing(path) as file:
        fail(file)
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_keeps_what_was_there_and_a_later_writer_deletes_its_half(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_text("before", encoding="utf-8")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text(encoding="utf-8") == "before"
    (left,) = [file for file in tmp_path.iterdir() if is_unfinished(file)]
    write_atomically(path, "whole")
    assert left.exists(), "its writer may be at it"

    others = [tmp_path / name for name in (".last.ckpt.lock", ".best.ckpt.0.unfinished")]
    for file in (left, *others):
        file.touch()
        os.utime(file, (0, 0))
    write_atomically(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_what_must_last_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "rows.csv", []
    fsync = os.fsync

    def flushed(descriptor: int) -> None:
        seen.append(path.exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushed)
    with replacing(path, durable=True) as file:
        file.write_bytes(b"a row\n")
    assert seen == [False]
    assert path.read_bytes() == b"a row\n"
