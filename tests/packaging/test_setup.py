"""`make setup`, with a stand-in for the interpreter: nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# Answers as python does where the Makefile asks, makes an environment that holds a copy of itself,
# and writes every call of pip into a log. With a file `broken` beside it, pip fails.
STAND_IN = """#!/bin/sh
here="$(cd "$(dirname "$STAND_IN_LOG")" && pwd)"
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo venv >> "$STAND_IN_LOG" ;;
"-m pip") echo "pip $*" >> "$STAND_IN_LOG" && [ ! -e "$here/broken" ] ;;
*) exit "${STAND_IN_TOO_OLD:-0}" ;;
esac
"""


class Checkout:
    """A folder with the Makefile and nothing to install."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.python = folder / "python-stand-in"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(root / name, folder / name)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run make here, and return what it printed."""
        return subprocess.run(
            ["make", f"PYTHON={self.python}", *arguments],
            cwd=self.folder,
            env={**os.environ, "STAND_IN_LOG": str(self.log), "MAKEFLAGS": "", **environment},
            text=True,
            capture_output=True,
            timeout=60,
        )

    def calls(self) -> list[str]:
        """Return the calls since the last time, and forget them."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Checkout:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    return Checkout(folder, root)


def test_setup_installs_all_extras_with_the_pins(checkout: Checkout) -> None:
    result = checkout.make("setup")

    assert result.returncode == 0, result.stderr
    first, *installs = checkout.calls()
    assert first == "venv"
    assert all("--constraint constraints.txt" in line for line in installs)
    assert installs[-1].endswith("--editable .[all]")


def test_a_second_setup_has_nothing_to_do(checkout: Checkout) -> None:
    checkout.make("setup")
    checkout.calls()

    assert checkout.make("setup").returncode == 0
    assert checkout.calls() == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_setup_updates_the_environment_when_the_requirements_change(
    checkout: Checkout, changed: str
) -> None:
    checkout.make("setup")
    checkout.calls()
    ready = (checkout.folder / ".venv" / ".ready").stat().st_mtime
    os.utime(checkout.folder / changed, (ready + 60, ready + 60))

    assert checkout.make("setup").returncode == 0
    calls = checkout.calls()
    assert calls
    assert "venv" not in calls


def test_an_interrupted_setup_is_begun_anew(checkout: Checkout) -> None:
    (checkout.folder / "broken").touch()
    assert checkout.make("setup").returncode != 0
    assert not (checkout.folder / ".venv" / ".ready").exists()
    (checkout.folder / ".venv" / "left-over").touch()
    (checkout.folder / "broken").unlink()
    checkout.calls()

    assert checkout.make("setup").returncode == 0
    assert checkout.calls()[0] == "venv"
    assert not (checkout.folder / ".venv" / "left-over").exists()


def test_an_environment_made_by_hand_is_kept(checkout: Checkout) -> None:
    binaries = checkout.folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy(checkout.python, binaries / "python")

    assert checkout.make("setup").returncode == 0
    assert "venv" not in checkout.calls()


def test_an_old_python_is_refused_before_anything_is_created(checkout: Checkout) -> None:
    result = checkout.make("setup", STAND_IN_TOO_OLD="1")

    assert result.returncode != 0
    assert not (checkout.folder / ".venv").exists()


def test_no_python_at_all_is_refused_with_the_way_out(checkout: Checkout) -> None:
    result = checkout.make("setup", "PYTHON=")

    assert result.returncode != 0
    assert "make setup PYTHON=" in result.stderr
    assert not (checkout.folder / ".venv").exists()


def test_the_failure_of_a_check_is_the_failure_of_make(checkout: Checkout) -> None:
    checkout.make("setup")
    ruff = checkout.folder / ".venv" / "bin" / "ruff"
    ruff.write_text("#!/bin/sh\nexit 1\n")
    ruff.chmod(0o755)

    result = checkout.make("check", "test")

    assert result.returncode != 0
    assert not any("pytest" in line for line in checkout.calls())
