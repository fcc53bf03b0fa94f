"""`tsattn leaderboard verify`: score kept checkpoints anew and compare with their rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tsattn.bench.leaderboard.kept_rows import NOT_KEPT, checkpoint_of, matching, name_of, read_all
from tsattn.bench.opened import open_kept, test
from tsattn.bench.rows import Row
from tsattn.errors import ConfigError, DataAbsentError, MissingExtraError, TsattnError
from tsattn.options import CommandParser

TOLERANCE = 1e-5
"""How far a score may be off, relative to it: processors round float32 sums differently."""

_COLUMNS = {
    "test_mse": ("test", "mse"),
    "test_mae": ("test", "mae"),
    "test_windows": ("test", "windows_scored"),
    "test_mse_as_published": ("as_published", "mse"),
    "test_mae_as_published": ("as_published", "mae"),
    "windows_as_published": ("as_published", "windows_scored"),
}


@dataclass(frozen=True)
class Verified:
    """A row that was scored anew.

    Attributes:
        row: the row.
        scores: the test MSE of the row and the one found now, or None where there is none.
        differences: what differs, in words; empty where all is equal.
        absent: what this machine lacks to score it, in words; empty where it was scored.
    """

    row: Row
    scores: tuple[float | None, float | None]
    differences: tuple[str, ...]
    absent: str = ""


def verify(words: Sequence[str]) -> int:
    """Run ``tsattn leaderboard verify`` as typed after that; 1 where something differs.

    Raises:
        ConfigError: no row of that name, or one without a checkpoint.
        DataError: results that cannot be read.
    """
    parser = CommandParser(
        prog="tsattn leaderboard verify",
        description="Score the kept checkpoints of rows anew, all test windows, and compare.",
    )
    parser.add_argument(
        "rows",
        nargs="*",
        default=[],
        help="parts of a key, such as patchtst/illness/tanh/2021; all rows with a checkpoint by "
        "default",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows")
    parser.add_argument("--root", type=Path | None, help="folder searched first for the data")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="largest relative difference of a score"
    )
    given = parser.parse_args(list(words))
    rows = _chosen(read_all(given.results), given.rows)
    if not rows:
        print(f"no row of {given.results} has a kept checkpoint: nothing to verify")
        return 0
    different = absent = 0
    for row in rows:
        found = verify_row(row, given.results, tolerance=given.tolerance, root=given.root)
        different += bool(found.differences)
        absent += bool(found.absent and not found.differences)
        print(_line(found), flush=True)
    unscored = f", {absent} not scored" if absent else ""
    print(f"{len(rows) - different - absent} of {len(rows)} rows are equal{unscored}")
    return 1 if different else 0


def verify_row(
    row: Row, results: Path, *, tolerance: float = TOLERANCE, root: Path | None = None
) -> Verified:
    """Score a row's checkpoint and compare everything that a score consists of.

    Args:
        row: the row.
        results: folder of the results.
        tolerance: largest relative difference of a score.
        root: folder that is searched first for the data.

    Raises:
        ConfigError: the row has no kept checkpoint.
    """
    path = checkpoint_of(row, results)
    if not path.is_file():
        return Verified(row, (row.test_mse, None), (f"{path} is not there",))
    differences: list[str] = []
    digest = sha256(path.read_bytes()).hexdigest()
    if digest != row.checkpoint_sha256:
        differences.append(
            f"{path} has sha256 {digest[:12]}, the row says {row.checkpoint_sha256[:12]}"
        )
    try:
        result = test(open_kept(path, row.precision, root))
    except (DataAbsentError, MissingExtraError) as error:
        return Verified(row, (row.test_mse, None), tuple(differences), absent=str(error))
    except TsattnError as error:
        return Verified(row, (row.test_mse, None), (*differences, str(error)))
    for column, (part, name) in _COLUMNS.items():
        stated, now = getattr(row, column), result[part][name]
        if not _equal(stated, now, tolerance):
            differences.append(f"{column} is {now!r}, the row says {stated!r}")
    return Verified(row, (row.test_mse, result["test"]["mse"]), tuple(differences))


def _equal(stated: float | None, now: float | None, tolerance: float) -> bool:
    if stated is None or now is None:
        return stated is now
    return math.isclose(stated, now, rel_tol=tolerance)


def _chosen(rows: Sequence[Row], fragments: Sequence[str]) -> list[Row]:
    if not fragments:
        return [row for row in rows if row.checkpoint]
    chosen: dict[int, Row] = {}
    for fragment in fragments:
        found = matching(rows, fragment)
        kept = [row for row in found if row.checkpoint]
        if not kept:
            raise ConfigError(
                f"none of the {len(found)} rows of {fragment!r} has a kept checkpoint: {NOT_KEPT}"
            )
        chosen |= {id(row): row for row in kept}
    return list(chosen.values())


def _line(found: Verified) -> str:
    stated, now = found.scores
    name = name_of(found.row)
    if found.differences:
        return f"DIFFERENT  {name}: {'; '.join(found.differences)}"
    if found.absent:
        return f"not scored {name}: {found.absent}"
    off = abs((now or 0.0) - (stated or 0.0))
    return f"equal      {name}: test MSE {now:.6f}, row {stated:.6f}, difference {off:.1e}"
