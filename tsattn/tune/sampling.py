"""Which values a trial gets, and when it is stopped early."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tsattn.errors import ConfigError

PRUNERS = ("median", "hyperband", "none")
DEFAULT_EPOCHS = 1000
"""Epochs of a trainer that is told no limit at all, as Lightning has it."""

RETRY_OF = "retry_of"
"""Attribute of a trial that repeats one that failed: the number of the first of them."""

_REDUCTION = 3


class SeededTPE(BaseSampler):
    """A tree-structured Parzen estimator whose draws depend on nothing but seed, place and history.

    Each trial has a generator of its own, made from the seed and the trial's place in the study
    (a retry has the place of the first try). A study that was interrupted and resumed therefore
    proposes what the uninterrupted one would have, where a generator that begins anew would repeat
    itself.

    Args:
        seed: of the study.
        study: the whole study; what a pruner shows to a sampler may be a part of it.

    Source: Bergstra et al., Algorithms for hyper-parameter optimization, 2011, as in Optuna.
    """

    def __init__(self, seed: int, study: Study) -> None:
        self.seed = seed
        self.study = study
        self._samplers: dict[int, TPESampler] = {}

    def _of(self, trial: FrozenTrial) -> TPESampler:
        if trial.number not in self._samplers:
            first = trial.user_attrs.get(RETRY_OF, trial.number)
            earlier = self.study.get_trials(deepcopy=False)[:first]
            place = sum(RETRY_OF not in t.user_attrs for t in earlier)
            drawn = np.random.SeedSequence([self.seed, place]).generate_state(1)
            self._samplers[trial.number] = TPESampler(seed=int(drawn[0]))
        return self._samplers[trial.number]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what is drawn together."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw what is drawn together."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one value."""
        sampler = self._of(trial)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Forget the generator of a trial that is over."""
        self._samplers.pop(trial.number, None)


def make_pruner(name: str, max_epochs: int | None) -> BasePruner:
    """Return what stops trials that fall behind.

    ``median`` stops a trial whose best validation loss so far is worse than the median of the
    others' at the same epoch, after five whole trials and a tenth of the epochs; ``hyperband``
    gives every trial a budget of epochs by successive halving; ``none`` stops nothing.

    Args:
        name: one of `PRUNERS`.
        max_epochs: of a whole trial, as the trainer takes it: None for its default, -1 for no
            limit.

    Raises:
        ConfigError: there is no such pruner, or it cannot share out so few epochs.
    """
    epochs = DEFAULT_EPOCHS if max_epochs is None else max_epochs
    if name == "none":
        return NopPruner()
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 10))
    if name != "hyperband":
        raise ConfigError(f"unknown pruner {name!r}; expected one of {', '.join(PRUNERS)}")
    if epochs < _REDUCTION:
        given = "-1 (no limit)" if epochs == -1 else str(epochs)
        raise ConfigError(
            f"--pruner hyperband shares out the epochs of a trial: it needs at least {_REDUCTION}, "
            f"got --trainer.max_epochs {given}; give a larger one, or --pruner median or none"
        )
    return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=_REDUCTION)
