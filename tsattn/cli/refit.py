"""``tsattn refit``: a validated run, trained once more on all rows."""

from collections.abc import Sequence
from pathlib import Path

from tsattn.data.amounts import counted
from tsattn.options import CommandParser
from tsattn.training.refit import refit as refit_run
from tsattn.training.refit import refit_folder


def refit(words: Sequence[str]) -> int:
    """Run ``tsattn refit`` as typed after that.

    Args:
        words: the options.

    Returns:
        Exit status 0.

    Raises:
        TsattnError: no finished run, or a folder that holds something already.
    """
    parser = CommandParser(
        prog="tsattn refit",
        description="Train a run once more on its training, validation and test rows together, for "
        "as many epochs as were best, with the same recipe and seed; its scores and intervals stay "
        "those of the validated run.",
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of the validated run")
    add("--data", type=Path | None, help="train on all rows of this CSV file instead")
    add("--run_dir", type=Path | None, help="folder of the new run; by default RUN-refit")
    add("--ckpt_path", type=str | None, help="last: go on with an interrupted refit")
    add("--overwrite", action="store_true", help="replace an existing run in --run_dir")
    given = parser.parse_args(list(words))
    run_dir = given.run_dir or refit_folder(given.run)
    result = refit_run(
        given.run,
        data=given.data,
        run_dir=run_dir,
        ckpt_path=given.ckpt_path,
        overwrite=given.overwrite,
    )
    print(
        f"{result['dataset']['name']}: trained on {result['dataset']['trained_rows']:,} rows for "
        f"{counted(result['epochs'], 'epoch')}, validated by {given.run}: {run_dir}"
    )
    return 0
