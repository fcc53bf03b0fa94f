"""`tsattn compare`: two or more runs, or sets of seeds, on the same windows."""

from collections.abc import Sequence
from pathlib import Path

from tsattn.bench.compare.differences import compare_sides, pairing_of
from tsattn.bench.compare.report import FILES, show, write_files
from tsattn.bench.compare.sides import open_sides, score
from tsattn.console import IN_PIPE, open_console
from tsattn.errors import ExistsError, MissingExtraError
from tsattn.options import CommandParser

_ABOUT = """\
Paired test of runs on the same windows: the best checkpoint of each is scored again, and every
side is compared with the first. A side is [NAME=]RUN[,RUN...]: a run folder, several that differ in
their seeds, or parts of the key of rows whose checkpoints are kept among the results, such as
patchtst/illness/tanh. Sets of runs are paired seed by seed, single runs window by window: means of
disjoint blocks, two horizons long; both with Student's t.
"""


def compare(words: Sequence[str]) -> int:
    """Run ``tsattn compare`` as typed after that.

    Raises:
        ConfigError: sides that cannot be opened or paired.
        DataError: sides that are not scored on the same windows.
        ExistsError: files would be replaced, and ``--overwrite`` was not given.
    """
    parser = CommandParser(prog="tsattn compare", description=_ABOUT)
    parser.add_argument("sides", nargs="+", help="runs or sets of runs; the first is the reference")
    parser.add_argument("--out", type=Path | None, help="folder for tidy CSV files and a picture")
    parser.add_argument("--overwrite", action="store_true", help="replace files in that folder")
    parser.add_argument(
        "--block",
        type=int | None,
        help="windows of a block at least, for single runs; default: two horizons",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows")
    parser.add_argument("--root", type=Path | None, help="folder searched first for the data")
    given = parser.parse_args(list(words))
    if given.out:
        _refuse_existing(given.out, overwrite=given.overwrite)
    opened = open_sides(given.sides, given.results, given.root)
    data = opened[0].runs[0].data
    sides = [score(side) for side in opened]
    pairing = pairing_of(sides, data, given.block)
    compared = compare_sides(sides, pairing)
    console = open_console(IN_PIPE)
    show(sides, compared, pairing, console)
    if not given.out:
        return 0
    write_files(given.out, sides, compared, data)
    try:
        from tsattn.bench.compare.picture import draw

        draw(given.out / "comparison.png", sides, compared, pairing, data)
    except MissingExtraError as error:
        console.print(f"no picture: {error}")
    console.print(f"files: {given.out}")
    return 0


def _refuse_existing(folder: Path, *, overwrite: bool) -> None:
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise ExistsError(
            f"{folder} holds {', '.join(there)}; choose another --out, or replace them with "
            "--overwrite"
        )
