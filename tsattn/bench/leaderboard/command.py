"""`tsattn leaderboard`: render, or score kept checkpoints anew."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from tsattn.bench.leaderboard.places import Places
from tsattn.bench.leaderboard.render import MARKER, content_of, html, markdown
from tsattn.errors import ExistsError
from tsattn.files import write_atomically
from tsattn.options import CommandParser

_SUBCOMMANDS = ("verify", "forecasts")


def leaderboard(words: Sequence[str]) -> int:
    """Run ``tsattn leaderboard`` as typed after that.

    Args:
        words: nothing or options to render; ``verify`` and ``forecasts`` with theirs.

    Returns:
        The exit status: 1 where ``--check`` or ``verify`` found a difference.

    Raises:
        DataError: results that cannot be read.
        ExistsError: a file that was not rendered here would be replaced.
    """
    command = words[0] if words and not words[0].startswith("-") else ""
    if command == "verify":
        from tsattn.bench.leaderboard.verify import verify

        return verify(words[1:])
    if command == "forecasts":
        from tsattn.bench.leaderboard.forecasts import forecasts

        return forecasts(words[1:])
    if command:
        near = get_close_matches(command, _SUBCOMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"unknown tsattn leaderboard {command!r}{hint} (expected options to render, or "
            f"{' or '.join(_SUBCOMMANDS)})"
        )
    return _render(words)


def _render(words: Sequence[str]) -> int:
    parser = CommandParser(
        prog="tsattn leaderboard",
        description="Render Table 2 with our figures from the rows of results, as Markdown and "
        "HTML. `tsattn leaderboard verify` scores the kept checkpoints anew, `tsattn leaderboard "
        "forecasts` keeps a forecast of each for the pictures.",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows")
    parser.add_argument(
        "--out", type=Path, default=Path("leaderboard.md"), help="Markdown; HTML lies beside it"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say whether both files are up to date"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that were not rendered here, too"
    )
    given = parser.parse_args(list(words))
    content = content_of(given.results, Places(given.results, given.out))
    texts = {given.out: markdown(content), given.out.with_suffix(".html"): html(content)}
    if given.check:
        return _check(texts)
    for path in texts:
        _refuse_foreign(path, overwrite=given.overwrite)
    for path, text in texts.items():
        write(path, text)
    filled = sum(1 for cell in content.board.cells.values() if cell.rows)
    print(f"{', '.join(map(str, texts))}: {len(content.board.rows)} runs in {filled} cells")
    return 0


def _check(texts: dict[Path, str]) -> int:
    stale = [path for path, text in texts.items() if not _same(path, text)]
    for path in stale:
        what = "differs from a fresh rendering" if path.is_file() else "is not there"
        print(f"{path} {what}; run tsattn leaderboard")
    if not stale:
        print(f"{', '.join(map(str, texts))}: up to date")
    return 1 if stale else 0


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _refuse_foreign(path: Path, *, overwrite: bool) -> None:
    if path.is_file() and not overwrite and MARKER.encode() not in path.read_bytes()[:400]:
        raise ExistsError(
            f"{path} exists and was not rendered by tsattn leaderboard; choose another --out, or "
            "replace it with --overwrite"
        )


def write(path: Path, text: str) -> None:
    """Replace a file in one step, with the same bytes on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
