"""Trainings that several tests of the benchmark look at."""

import sys
from collections.abc import Iterator

import pytest

from tests.bench.trained import Trained, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Four finished runs; look, but change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)  # pictures take longer than training
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
            patch.setenv(name, "")
            patch.delenv(name)
        yield train(tmp_path_factory.mktemp("trained"))
