"""Trainings that several tests of the benchmark look at."""

import sys

import pytest

from tests.bench.trained import Trained, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Four finished runs; look, but change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)  # pictures take longer than training
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
            patch.setenv(name, "")
            patch.delenv(name)
        return train(tmp_path_factory.mktemp("trained"))
