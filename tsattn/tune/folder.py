"""The folder of a study: whose it is, so that two studies never write into one."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tsattn.errors import ConfigError, ExistsError
from tsattn.files import is_unfinished, write_atomically
from tsattn.tune.storage import file_of, shown

TRIALS, REPEATS = "trials", "repeats"
"""Folders of the runs."""

_MARKER = "study.json"
_OF_RUNS = (TRIALS, REPEATS)


class StudyFolder:
    """A folder that belongs to one study in one storage.

    Args:
        path: of the folder.
        study: name of the study.
        url: the storage; its file may lie in the folder.
    """

    def __init__(self, path: Path, study: str, url: str) -> None:
        self.path = path
        self.marker = path / _MARKER
        self._storage = file_of(url)
        self.mine = {"study": study, "storage": shown(url), "file": self._kept(self._storage)}

    def require_free(self) -> None:
        """Change nothing, and refuse what cannot become this study's folder.

        Raises:
            ExistsError: it is another study's, or holds something else, or its marker is damaged.
        """
        if self.marker.is_file():
            theirs = self._theirs()
            if (theirs["study"], self._place(theirs)) != (self.mine["study"], self._place()):
                raise ExistsError(
                    f"{self.path} belongs to the study {theirs['study']} in {self._place(theirs)}, "
                    f"not to {self.mine['study']} in {self._place()}; choose another --out"
                )
        elif self.path.exists() and not (self.path.is_dir() and self._holds_nothing()):
            raise ExistsError(
                f"{self.path} exists and is no folder of a study; choose another --out"
            )

    def require_no_runs(self) -> None:
        """Refuse runs that trials would have to be written over, which a study left that is gone.

        Raises:
            ExistsError: there are some.
        """
        left = [name for name in _OF_RUNS if any((self.path / name).glob("*"))]
        if left:
            raise ExistsError(
                f"{self.path} holds runs ({', '.join(left)}) of a study {self.mine['study']} that "
                f"had trials; in {self._place()} it has none. Bring that storage back, or move "
                f"{' and '.join(left)} out of {self.path} to begin anew, or choose another --out"
            )

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder this study's own once what is done meanwhile has succeeded."""
        existed = self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)  # the storage may lie in it
        try:
            yield
        except BaseException:
            if not existed:
                with contextlib.suppress(OSError):  # something lies in it
                    self.path.rmdir()
            raise
        write_atomically(self.marker, json.dumps(self.mine, indent=2) + "\n")

    def _holds_nothing(self) -> bool:
        """Whether there is no more than a command that was killed early has left."""
        file = self._storage
        mine = file.name if file and file.parent == self.path.resolve() else None
        return all(
            is_unfinished(path) or (mine and path.name.startswith(mine))
            for path in self.path.iterdir()
        )

    def _kept(self, file: Path | None) -> str | None:
        """Return a file as the marker has it: within the folder, which may be moved, or whole."""
        home = self.path.resolve()
        if file is None or not file.is_relative_to(home):
            return file and str(file)
        return file.relative_to(home).as_posix()

    def _place(self, marker: dict[str, Any] | None = None) -> str:
        """Return where a study is kept, however that was typed: a file, or a server's address."""
        marker = marker or self.mine
        if "file" in marker:
            file = marker["file"]
            return str((self.path / file).resolve()) if file else marker["storage"]
        with contextlib.suppress(ConfigError):  # the address alone, as it was typed
            return str(file_of(marker["storage"]) or marker["storage"])
        return marker["storage"]

    def _theirs(self) -> dict[str, Any]:
        try:
            theirs: Any = json.loads(self.marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise self._damaged(f"no JSON ({error})") from error
        if not isinstance(theirs, dict) or not _is_marker(theirs):
            raise self._damaged(f"{json.dumps(theirs)[:60]}, not a study and its storage")
        return theirs

    def _damaged(self, what: str) -> ExistsError:
        return ExistsError(
            f"{self.marker} is damaged: it holds {what}. If {self.path} is the folder of this "
            f"study, write {json.dumps(self.mine)} into that file; otherwise choose another --out"
        )


def _is_marker(found: dict[str, Any]) -> bool:
    texts = (found.get("study"), found.get("storage"), found.get("file") or "")
    return all(isinstance(text, str) for text in texts)
