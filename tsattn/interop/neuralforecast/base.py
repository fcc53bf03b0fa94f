"""What our networks share as models of neuralforecast."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

from neuralforecast.common._base_model import BaseModel
from neuralforecast.core import MODEL_FILENAME_DICT
from torch import Tensor, nn

from tsattn.errors import ConfigError
from tsattn.models import Forecast, ForecastNetwork
from tsattn.nn.auxiliary import loss_weights
from tsattn.nn.moe import plan_competitions
from tsattn.nn.parts import Factory, build_part, describe_part
from tsattn.nn.stepping import after_step
from tsattn.tensors import Covariates

Part = Factory | Mapping[str, Any] | None
"""A factory, or the description of one by names and numbers (`tsattn.nn.parts.describe_part`)."""

_LEFT_OPEN: Mapping[str, Any] = {
    "valid_loss": None,
    "learning_rate": 1e-4,
    "max_steps": 5000,
    "val_check_steps": 100,
    "batch_size": 32,
    "valid_batch_size": None,
    "windows_batch_size": 1024,
    "inference_windows_batch_size": 1024,
    "start_padding_enabled": False,
}
"""What BaseModel has no default for, as in neuralforecast's own PatchTST."""


class ActiveModel(BaseModel):
    """A network of this library that neuralforecast trains, stores and loads.

    neuralforecast chooses the windows, scales them, applies the domain map of its loss to what
    ``forward`` returns, [windows, h, outputsize_multiplier], and steps the optimiser. Three
    things that it has no hook for are done here: the auxiliary losses of a network are added to its
    loss, each with the weight that the layers state, parts that go by steps are told of each, and
    the competitions of `tsattn.nn.moe.CompeteSMoE` are planned when training starts.

    Every subclass is entered into neuralforecast's table of names when it is defined. A model that
    is not there cannot be saved, and a subclass of one that is would be loaded as its parent.

    Attributes:
        network: the network.
    """

    network: ForecastNetwork

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Enter the subclass into neuralforecast's table of names."""
        super().__init_subclass__(**kwargs)
        enter_name(cls.__name__, cls)

    @property
    def numbers_of_covariates(self) -> dict[str, int]:
        """How many covariates neuralforecast hands over, as arguments of a network."""
        return {
            "known_covariates": self.futr_exog_size,
            "past_covariates": self.hist_exog_size,
            "static_covariates": self.stat_exog_size,
        }

    def covariates(self, windows_batch: Mapping[str, Any]) -> Covariates | None:
        """Return the covariates of a batch of windows; None where there are none."""
        if not any(self.numbers_of_covariates.values()):
            return None
        y_BT1: Tensor = windows_batch["insample_y"]
        batch, context = y_BT1.shape[:2]
        known, past, static = (
            y_BT1.new_zeros(*shape, 0) if windows_batch[name] is None else windows_batch[name]
            for name, shape in (
                ("futr_exog", (batch, context + self.h)),
                ("hist_exog", (batch, context)),
                ("stat_exog", (batch,)),
            )
        )
        return Covariates(known, past, static)

    def adopt(self, network: ForecastNetwork, settings: Mapping[str, Any]) -> None:
        """Take the network that was built, and note the settings that build it again."""
        self.network = network
        self._weights = loss_weights(network)
        self.hparams.update(settings)

    def on_train_start(self) -> None:
        """Plan the competitions of the training, or go on with the plan of a resumed one."""
        super().on_train_start()
        plan_competitions(
            self.network,
            int(self.trainer.estimated_stepping_batches),
            self.random_seed or 0,
            resume=self.trainer.global_step > 0,
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return neuralforecast's loss and the weighted auxiliary losses of the network."""
        seen: list[Forecast] = []

        def see(network: nn.Module, inputs: Any, forecast: Forecast) -> None:
            seen.append(forecast)

        with self.network.register_forward_hook(see):
            loss = super().training_step(batch, batch_idx)
        for forecast in seen:
            for name, more in forecast.losses.items():
                loss = loss + self._weights.get(name, 1.0) * more
                self.log(f"train_{name}", more.detach(), batch_size=len(forecast.mean))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and tell the parts of the network that go by steps."""
        super().optimizer_step(*args, **kwargs)
        after_step(self.network)


def enter_name(name: str, model: type[ActiveModel]) -> None:
    """Let neuralforecast load files of ``name`` as ``model``.

    Raises:
        ConfigError: neuralforecast has a model of its own under that name.
    """
    known = MODEL_FILENAME_DICT.get(name.lower())
    if known is not None and not issubclass(known, ActiveModel):
        raise ConfigError(
            f"neuralforecast has a {known.__name__} of its own, and would load the files of this "
            f"one as that: call the subclass of {ActiveModel.__name__} something else than {name!r}"
        )
    MODEL_FILENAME_DICT[name.lower()] = model


def base_arguments(model: type[ActiveModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the arguments for BaseModel, after a look at their names.

    Args:
        model: the class that is built.
        given: arguments by name, those of Lightning's Trainer among them.

    Raises:
        ConfigError: a name that neither BaseModel nor the Trainer knows.
    """
    trainer = import_module("pytorch_lightning").Trainer  # neuralforecast's, not lightning's
    own = inspect.signature(model).parameters.keys()
    known = own | inspect.signature(BaseModel).parameters.keys()
    for name in given.keys() - known - inspect.signature(trainer).parameters.keys():
        near = get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its own are {', '.join(own)}"
        raise ConfigError(
            f"{model.__name__}, neuralforecast's BaseModel and Lightning's Trainer have no "
            f"argument {name!r}; {hint}"
        )
    return {**_LEFT_OPEN, **given}


def as_factory(part: Part) -> Factory | None:
    """Return the factory of a part that may be given by its description.

    Raises:
        ConfigError: a description that names no part.
    """
    if not isinstance(part, Mapping):
        return part
    try:
        return build_part({"arguments": {}, **part})
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"feedforward={dict(part)!r} describes no part ({error}); expected for example "
            "{'class': 'MoE', 'arguments': {'num_experts': 4}}, or a factory"
        ) from error


def as_stored(part: Part) -> Any:
    """Return the description of a part, or the part itself where it has none (and no file)."""
    if part is None or isinstance(part, Mapping):
        return part
    return describe_part(part) or part


def is_distribution(loss: nn.Module) -> bool:
    """Whether a loss reads its outputs as parameters of a distribution."""
    return bool(getattr(loss, "is_distribution_output", False))


def outputs_of(loss: nn.Module) -> int:
    """Return how many numbers a loss needs for each step of the horizon."""
    return int(cast(Any, loss).outputsize_multiplier)
