"""Search for the settings of ActivePatchTST, as neuralforecast's Auto models do it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import optuna
from neuralforecast.common._base_auto import BaseAuto, OptunaOptions, RayOptions
from neuralforecast.losses.pytorch import MAE
from torch import nn

from tsattn.interop.neuralforecast.base import enter_name
from tsattn.interop.neuralforecast.patchtst import ActivePatchTST

Backend = Literal["optuna", "ray"]

_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "value_activation": ("identity", "relu", "gelu", "silu", "tanh", "sigmoid"),
    "d_model": (16, 64, 128),
    "num_heads": (4, 8, 16),
    "d_ff": (128, 256),
    "dropout": (0.1, 0.2, 0.3),
    "max_steps": (500, 1000, 2000),
    "batch_size": (32, 64, 128),
    "windows_batch_size": (128, 256, 512, 1024),
    "random_seed": tuple(range(1, 20)),
}
_RATES = (1e-4, 1e-2)
_WINDOWS = (1, 2, 3, 5)
"""Lengths of the window, in horizons."""
_PATCHES = (8, 16, 24)


class AutoActivePatchTST(BaseAuto):
    """Searches the settings of `ActivePatchTST` that give the lowest validation loss.

    Args:
        h: steps to forecast.
        loss: of training; ``None`` means MAE.
        valid_loss: that the search minimises; ``None`` means ``loss``.
        config: the space: for Optuna a function of a trial that returns settings, for Ray a dict of
            its samplers. ``None`` means `get_default_config`.
        search_alg: an Optuna sampler or an algorithm of Ray; ``None`` means TPE or random search
            with a fixed seed.
        num_samples: settings to try.
        time_budget: seconds for the search.
        refit_with_val: train the best settings with the validation part set aside again.
        verbose: show progress.
        alias: name of the model's column.
        backend: ``optuna``, in this process, or ``ray``.
        callbacks: of the study.
        ray_options: of Ray alone.
        optuna_options: of Optuna alone: a storage, a pruner, ...

    Raises:
        ValueError: a ``config`` of another backend, or one that leaves out ``input_size``.
    """

    def __init__(
        self,
        h: int,
        loss: nn.Module | None = None,
        valid_loss: nn.Module | None = None,
        config: Any = None,
        search_alg: Any = None,
        num_samples: int = 10,
        time_budget: float | None = None,
        refit_with_val: bool = False,
        verbose: bool = False,
        alias: str | None = None,
        backend: Backend = "optuna",
        callbacks: list[Any] | None = None,
        ray_options: RayOptions | None = None,
        optuna_options: OptunaOptions | None = None,
    ) -> None:
        super().__init__(
            cls_model=ActivePatchTST,
            h=h,
            loss=MAE() if loss is None else loss,
            valid_loss=valid_loss,
            config=self.get_default_config(h, backend) if config is None else config,
            search_alg=_seeded(backend) if search_alg is None else search_alg,
            num_samples=num_samples,
            time_budget=time_budget,
            refit_with_val=refit_with_val,
            verbose=verbose,
            alias=alias,
            backend=backend,
            callbacks=callbacks,
            ray_options=ray_options,
            optuna_options=optuna_options,
        )

    @classmethod
    def get_default_config(
        cls, h: int, backend: Backend, n_series: int | None = None
    ) -> Callable[[Any], dict[str, Any]] | dict[str, Any]:
        """Return the default space: sizes, value activation, learning rate and batches.

        Args:
            h: steps to forecast; windows are 1, 2, 3 or 5 times as long.
            backend: ``optuna`` for a function of a trial, ``ray`` for a dict of samplers.
            n_series: taken for the sake of neuralforecast's other Auto models, and not used.
        """
        choices = {**_CHOICES, "input_size": tuple(h * times for times in _WINDOWS)}
        choices["patch_length"] = tuple(p for p in _PATCHES if p <= h) or (None,)
        if backend == "ray":
            from ray import tune

            samplers = {name: tune.choice(list(values)) for name, values in choices.items()}
            return {**samplers, "learning_rate": tune.loguniform(*_RATES)}

        def config(trial: Any) -> dict[str, Any]:
            chosen = {name: trial.suggest_categorical(name, v) for name, v in choices.items()}
            return {
                **chosen,
                "learning_rate": trial.suggest_float("learning_rate", *_RATES, log=True),
            }

        return config


def _seeded(backend: Backend) -> Any:
    if backend == "optuna":
        return optuna.samplers.TPESampler(seed=1)
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=1)


enter_name(AutoActivePatchTST.__name__, ActivePatchTST)
