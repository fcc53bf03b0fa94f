"""Download files of the catalog: checked, retried, and never half a file under the final name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tsattn.data.catalog import DatasetInfo
from tsattn.data.load import ROOT_VARIABLE, cache_dir, find_file
from tsattn.data.verify import file_sha256
from tsattn.errors import DataError

_CHUNK = 1 << 16


def download_dir(root: Path | None = None) -> Path:
    """Return where downloads go: ``--data.root``, else ``TSATTN_DATA``, else the user cache."""
    if root is not None:
        return Path(root).expanduser()
    variable = os.environ.get(ROOT_VARIABLE)
    return Path(variable).expanduser() if variable else cache_dir()


def fetch_file(
    info: DatasetInfo, root: Path | None = None, *, retries: int = 2, show_progress: bool = True
) -> tuple[Path, bool]:
    """Bring a file of the catalog onto this machine, where it is not yet.

    Every address is tried ``1 + retries`` times. The bytes go to a temporary file in the target
    folder; only a file with a known sha256 gets the final name, in one step.

    Args:
        info: Dataset to fetch.
        root: Target folder; without it, a good file in any search folder is enough.
        retries: How often a failed download is tried again.
        show_progress: Whether to draw a progress bar.

    Returns:
        The file, and whether it was downloaded now.

    Raises:
        DataError: A file of this name is there and is another one, or no address gave the right
            bytes.
    """
    folder = download_dir(root)
    target = folder / info.filename
    if target.is_file():
        _require_good(target, info)
        return target, False
    elsewhere = find_file(info) if root is None else None
    if elsewhere is not None and info.variant_of(file_sha256(elsewhere)):
        return elsewhere, False
    failures: list[str] = []
    for url in info.urls:
        failure = _download(info, url, folder, retries, show_progress)
        if failure is None:
            return target, True
        failures.append(f"{url}: {failure}")
    raise DataError(
        f"{info.name} could not be fetched: {'; '.join(failures)}; try again later, or download "
        f"{info.filename} in another way and put it at {target}"
    )


def _require_good(path: Path, info: DatasetInfo) -> None:
    sha256 = file_sha256(path)
    if info.variant_of(sha256) is None:
        raise DataError(
            f"{path} exists and is not the {info.filename} of the catalog (sha256 {sha256}, "
            f"expected {' or '.join(info.sha256.values())}); it is left as it is: move it away, "
            f"or see `tsattn data verify {info.name}`"
        )


def _download(
    info: DatasetInfo, url: str, folder: Path, retries: int, show_progress: bool
) -> str | None:
    """Try one address; return why it failed, or None."""
    import pooch  # imports its downloaders, needed only here
    from requests.exceptions import RequestException

    manager = pooch.create(
        path=folder,
        base_url="",
        registry={info.filename: None},
        urls={info.filename: url},
        retry_if_failed=retries,
    )
    try:
        manager.fetch(info.filename, downloader=_checked_downloader(info, show_progress))
    except (RequestException, ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    (folder / info.filename).chmod(0o644)  # temporary files are private
    return None


def _checked_downloader(info: DatasetInfo, show_progress: bool) -> Callable[..., None]:
    """Return a downloader that takes any known byte variant, where pooch alone knows one hash."""
    import pooch

    http = pooch.HTTPDownloader(progressbar=show_progress, chunk_size=_CHUNK)

    def download(url: str, output_file: Any, manager: Any, check_only: Any = False) -> None:
        http(url, output_file, manager, check_only)
        path = Path(output_file)
        sha256 = file_sha256(path)
        if info.variant_of(sha256) is None:
            sizes = " or ".join(str(size) for size in info.size_bytes.values())
            raise ValueError(
                f"wrong bytes: sha256 {sha256} and {path.stat().st_size} bytes, expected "
                f"{' or '.join(info.sha256.values())} and {sizes}"
            )

    return download
