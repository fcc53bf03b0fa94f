"""Downloads, from a server on this machine only."""

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tsattn.data.catalog import CATALOG, DatasetInfo
from tsattn.data.fetch import download_dir, fetch_file
from tsattn.data.load import cache_dir
from tsattn.errors import DataError

GOOD = (Path(__file__).parents[2] / "datasets" / "national_illness.csv").read_bytes()
OTHER_VARIANT = GOOD.replace(b"\r\n", b"\n")

Respond = Callable[[BaseHTTPRequestHandler, int], None]


def send(body: bytes, *, claim: int | None = None, status: int = 200) -> Respond:
    """Answer with a body, and claim that it is longer than it is where asked to."""

    def respond(handler: BaseHTTPRequestHandler, hit: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if claim is None else claim))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def first(times: int, bad: Respond, then: Respond) -> Respond:
    """Answer badly a few times, then well."""
    return lambda handler, hit: (bad if hit <= times else then)(handler, hit)


ANSWERS: dict[str, Respond] = {
    "/good": send(GOOD),
    "/other-variant": send(OTHER_VARIANT),
    "/truncated": send(GOOD[:30_000]),
    "/wrong": send(GOOD.replace(b"2002", b"2003", 1)),
    "/dies": send(GOOD[:30_000], claim=len(GOOD)),
    "/missing": send(b"no such file", status=404),
    "/dies-once": first(1, send(GOOD[:30_000], claim=len(GOOD)), send(GOOD)),
    "/wrong-twice": first(2, send(b"<html>busy</html>"), send(GOOD)),
}


@dataclasses.dataclass
class Server:
    """Address of the server and how often each path was asked for."""

    address: str
    hits: dict[str, int]

    def info(self, *paths: str) -> DatasetInfo:
        urls = tuple(self.address + path for path in paths)
        return dataclasses.replace(CATALOG["illness"], urls=urls)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    hits: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits[self.path] = hits.get(self.path, 0) + 1
            ANSWERS[self.path](self, hits[self.path])

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Server(f"http://127.0.0.1:{http.server_port}", hits)
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "content", "hits"),
    [
        ("/good", GOOD, 1),
        ("/other-variant", OTHER_VARIANT, 1),
        ("/dies-once", GOOD, 2),
        ("/wrong-twice", GOOD, 3),
    ],
)
def test_a_good_file_arrives_after_as_many_tries_as_it_takes(
    server: Server, tmp_path: Path, path: str, content: bytes, hits: int
) -> None:
    folder = tmp_path / "new" / "folder"
    target, is_new = fetch_file(server.info(path), folder, show_progress=False)
    assert (target, is_new) == (folder / "national_illness.csv", True)
    assert target.read_bytes() == content
    assert [entry.name for entry in folder.iterdir()] == ["national_illness.csv"]
    assert server.hits == {path: hits}
    assert target.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/truncated", "wrong bytes: sha256 .* and 30000 bytes, expected .* and 67620 or 66653"),
        ("/wrong", "wrong bytes: sha256"),
        ("/dies", "IncompleteRead|Connection"),
        ("/missing", "404"),
    ],
)
def test_a_bad_download_leaves_nothing_behind_and_says_why(
    server: Server, tmp_path: Path, path: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        fetch_file(server.info(path), tmp_path, retries=1, show_progress=False)
    assert f"{server.address}{path}" in str(caught.value)
    assert f"put it at {tmp_path / 'national_illness.csv'}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert server.hits == {path: 2}


@pytest.mark.parametrize("path", ["/truncated", "/wrong", "/dies", "/missing"])
def test_the_next_address_is_tried_when_one_fails(
    server: Server, tmp_path: Path, path: str
) -> None:
    info = server.info(path, "/good")
    target, is_new = fetch_file(info, tmp_path, retries=0, show_progress=False)
    assert is_new
    assert target.read_bytes() == GOOD
    assert server.hits == {path: 1, "/good": 1}


def test_a_server_that_is_away_is_a_readable_error(tmp_path: Path) -> None:
    info = dataclasses.replace(CATALOG["illness"], urls=("http://127.0.0.1:9/file.csv",))
    with pytest.raises(DataError, match=r"illness could not be fetched: http://127\.0\.0\.1:9"):
        fetch_file(info, tmp_path, retries=0, show_progress=False)


def test_an_existing_good_file_is_kept_without_asking_the_server(
    server: Server, tmp_path: Path
) -> None:
    target = tmp_path / "national_illness.csv"
    target.write_bytes(OTHER_VARIANT)
    assert fetch_file(server.info("/good"), tmp_path) == (target, False)
    assert target.read_bytes() == OTHER_VARIANT
    assert server.hits == {}


def test_an_existing_bad_file_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "national_illness.csv"
    target.write_bytes(b"mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    with pytest.raises(DataError, match=f"exists and is not .*{digest}.*move it away"):
        fetch_file(server.info("/good"), tmp_path)
    assert target.read_bytes() == b"mine"
    assert server.hits == {}


def test_a_shipped_file_need_not_be_fetched(server: Server) -> None:
    target, is_new = fetch_file(server.info("/good"))
    assert not is_new
    assert target.read_bytes() == GOOD
    assert server.hits == {}


def test_an_interrupted_download_leaves_nothing_under_the_final_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("tsattn.data.fetch.file_sha256", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_file(server.info("/good"), tmp_path, show_progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_readable_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tsattn.data.fetch.file_sha256", full)
    with pytest.raises(DataError, match="No space left on device"):
        fetch_file(server.info("/good"), tmp_path, show_progress=False)


def test_a_progress_bar_is_drawn_on_request(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_file(server.info("/good"), tmp_path, show_progress=True)
    assert "100%" in capsys.readouterr().err


def test_downloads_go_to_the_root_the_variable_or_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert download_dir() == cache_dir()
    monkeypatch.setenv("TSATTN_DATA", str(tmp_path / "variable"))
    assert download_dir() == tmp_path / "variable"
    assert download_dir(tmp_path / "root") == tmp_path / "root"
