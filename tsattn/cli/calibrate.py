"""``tsattn calibrate``: what intervals need, added to a run that was trained without it."""

from collections.abc import Sequence
from pathlib import Path

from tsattn.options import CommandParser, naming_options
from tsattn.training.calibrating import calibrate_run
from tsattn.training.conformal import summary_of


def calibrate(words: Sequence[str]) -> int:
    """Run ``tsattn calibrate`` as typed after that.

    Args:
        words: the options.

    Returns:
        Exit status 0.

    Raises:
        TsattnError: no run, other data, or a calibration that nobody asked to replace.
    """
    parser = CommandParser(
        prog="tsattn calibrate",
        description="Forecast the validation windows of a run, and keep in its best checkpoint "
        "what intervals (tsattn forecast --levels) need.",
    )
    parser.add_argument("run", type=Path, help="run folder of tsattn fit")
    parser.add_argument("--root", type=Path | None, help="folder searched first for catalog files")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing calibration")
    given = parser.parse_args(list(words))
    with naming_options(["--root"]):
        calibration = calibrate_run(given.run, root=given.root, overwrite=given.overwrite)
    said = summary_of(calibration)
    highest = said["highest_level"]
    print(
        f"{given.run}: calibrated on {said['windows']} validation windows ({said['scores']}); "
        + (f"levels up to {highest:g} percent" if highest else "too few windows for any level")
    )
    return 0
