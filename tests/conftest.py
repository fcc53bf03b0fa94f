"""What holds for every test: one thread, a fixed seed, no network, and a cache of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Processes that tests start inherit these: one thread each, since the suite runs one worker a core,
# no window for pictures, and a closed port where a download would go.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
for _proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[_proxy] = "http://127.0.0.1:9"
for _exempt in ("no_proxy", "NO_PROXY"):
    os.environ[_exempt] = "127.0.0.1,localhost"

# Compiled kernels are shared by all tests and all runs, for building them takes half a minute.
_CACHE = os.environ.get("TSATTN_CACHE") or str(Path.home() / ".cache" / "tsattn")
os.environ.setdefault("TSATTN_KERNELS", str(Path(_CACHE) / "kernels"))

torch.set_num_threads(1)

# A loaded machine is no failure; where CI is set, the examples are the same at every run.
settings.register_profile("tsattn", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tsattn")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Draw the same numbers whatever ran before; pytest-randomly seeds the other libraries."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's data folder and cache out of every test."""
    monkeypatch.delenv("TSATTN_DATA", raising=False)
    monkeypatch.setenv("TSATTN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _shape_checks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Switch the checks of shapes and types off for tests marked as ``unchecked``."""
    before = jaxtyping.config.jaxtyping_disable
    if request.node.get_closest_marker("unchecked"):
        jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The stored tensors of the published code."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Larger reference material beside the checkout; a test that asks for it skips without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no reference material at {folder}")
    return folder
