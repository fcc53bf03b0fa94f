"""One finished run for all tests that only look at one."""

import pytest

from tests.training.tiny import Finished, fit
from tsattn.training.folder import RunFolder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run; look, but change nothing."""
    home = tmp_path_factory.mktemp("finished")
    result = fit(home / "run", "--trainer.max_epochs", 2)
    return Finished(RunFolder(home / "run"), result, home / "predictions.npz")
