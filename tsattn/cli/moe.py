"""``tsattn moe report``: what the mixtures of experts of a run did."""

from pathlib import Path

from tsattn.console import open_console
from tsattn.errors import ConfigError
from tsattn.files import write_atomically
from tsattn.training.folder import RunFolder
from tsattn.training.result import refuse_existing
from tsattn.training.routing_page import routing_page


def report(run: Path, out: Path | None = None, overwrite: bool = False) -> int:
    """Write a page with pictures of load, entropies, changes, and whom each expert serves.

    Args:
        run: Folder of a finished run.
        out: Page to write, HTML; by default routing.html in the run folder.
        overwrite: Replace an existing page.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: The folder is none of a finished run with mixtures, or the page is no .html.
        ExistsError: The page exists.
        MissingExtraError: Matplotlib is not installed.
    """
    folder = RunFolder(run)
    page = folder.routing_page if out is None else out
    if page.is_dir():
        raise ConfigError(f"--out {page} is a folder; give the name of a file, such as page.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {page}: the page is HTML; give a name that ends in .html")
    refuse_existing(page, overwrite=overwrite)
    text = routing_page(folder)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, text)
    open_console().print(f"page: {page}", highlight=False, soft_wrap=True)
    return 0
