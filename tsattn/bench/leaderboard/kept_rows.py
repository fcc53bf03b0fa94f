"""Rows by a fragment of their key, and where their checkpoints lie."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from tsattn.bench.leaderboard.cells import result_files
from tsattn.bench.rows import Row, read_rows
from tsattn.errors import ConfigError, DataError

NOT_KEPT = (
    "files of more than 1 MB are not kept among the results, nor any that would make them more "
    "than 40 MB together; floors and failed runs have none"
)


def read_all(results: Path) -> list[Row]:
    """Return the rows of all files of a folder of results.

    Raises:
        DataError: no such folder, or a damaged file, by name and line.
    """
    if not results.is_dir():
        raise DataError(f"no folder {results}; give the folder of results with --results")
    return [row for file in result_files(results) for row in read_rows(file)]


def matching(rows: Sequence[Row], fragment: str) -> list[Row]:
    """Return the rows whose key has every part of a fragment.

    Args:
        rows: the rows.
        fragment: parts of a key in any order, joined by ``/``: protocol, model, dataset, value
            activation, seed and configuration, for example ``patchtst/illness/tanh/2021``. Without
            a protocol it is Table 2's, where that has such a row.

    Raises:
        ConfigError: no row has all parts; the message names the part that none has.
    """
    parts = [part for part in fragment.split("/") if part]
    keys = {id(row): {str(part) for part in row.key} for row in rows}
    found = [row for row in rows if keys[id(row)] >= set(parts)]
    if not parts or not found:
        known = sorted({part for key in keys.values() for part in key if part})
        strange = [part for part in parts if part not in known]
        near = get_close_matches(strange[0], known, n=1) if strange else []
        hint = f"; did you mean {near[0]}?" if near else ""
        none = f"no row has {strange[0]!r}" if strange else "no row has all of these parts"
        raise ConfigError(
            f"no row of the results matches {fragment!r}: {none}{hint} (expected parts of a key, "
            "for example patchtst/illness/tanh/2021)"
        )
    main = [row for row in found if row.protocol == "table2"]
    return main if main and not {row.protocol for row in found} & set(parts) else found


def name_of(row: Row) -> str:
    """Return the fragment that names a row."""
    parts = [row.model, row.dataset, row.value_activation, str(row.seed)]
    protocol = [] if row.protocol == "table2" else [row.protocol]
    return "/".join(part for part in [*protocol, *parts] if part)


def checkpoint_of(row: Row, results: Path) -> Path:
    """Return where a row's checkpoint is kept.

    Raises:
        ConfigError: none is kept.
    """
    if not row.checkpoint:
        raise ConfigError(f"{name_of(row)} has no kept checkpoint: {NOT_KEPT}")
    return results / "checkpoints" / row.model / row.checkpoint
