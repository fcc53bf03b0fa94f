"""What tests of studies share: the tiny recipe as it is parsed, and studies in memory."""

import optuna
import pytest

from tests.training.tiny import RECIPE
from tsattn.training.parsed import ParsedRecipe
from tsattn.tune.storage import quiet


@pytest.fixture(scope="session")
def recipe() -> ParsedRecipe:
    """The tiny recipe."""
    return ParsedRecipe(["--config", str(RECIPE)])


@pytest.fixture
def study() -> optuna.Study:
    """A study in memory, without a pruner."""
    with quiet():
        return optuna.create_study(pruner=optuna.pruners.NopPruner())


@pytest.fixture(autouse=True)
def _no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a run leaves in the environment."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
