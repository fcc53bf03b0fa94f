"""What every network is: windows in, a `Forecast` out."""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from tsattn.tensors import (
    Context,
    ContextMarks,
    Covariates,
    CovariateSizes,
    Horizon,
    HorizonMarks,
)


def _no_losses() -> dict[str, Tensor]:
    return {}  # a subscripted dict as the factory would stop torch.compile


@dataclass(frozen=True)
class Forecast:
    """What a network says about the horizon.

    Attributes:
        mean: point forecast, [batch, horizon, channels], in the unit of the window; the median of
            networks that forecast quantiles.
        quantiles: [batch, horizon, channels, quantiles] where they were trained, else None; in the
            order of the network's ``quantiles``.
        losses: auxiliary losses by name, before their weights (`tsattn.nn.auxiliary.loss_weights`),
            summed over the layers; the task adds them to its loss. Mostly empty.
    """

    mean: Horizon
    quantiles: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=_no_losses)


LATER_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {"quantiles": None, "known_covariates": 0, "past_covariates": 0, "static_covariates": 0}
)
"""Arguments of networks that records and recipes leave out where they have this value.

They came later; networks that do without them are described as before.
"""


class TokenPlaces(NamedTuple):
    """Where the tokens of a window come from, in the order in which a layer sees them.

    Attributes:
        steps_L: the step in the middle of each token, counted from the window's first.
        channels_L: the channel of each token, or None where a token holds all of them.
    """

    steps_L: Tensor
    channels_L: Tensor | None = None


def require_at_least(minimum: int, **sizes: int) -> None:
    """Refuse sizes that are too small, by name.

    Raises:
        ValueError: a size below the minimum.
    """
    for name, size in sizes.items():
        if size < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {size}")


def covariate_sizes(known: int, past: int, static: int) -> CovariateSizes:
    """Return the numbers of covariates, none of them negative.

    Raises:
        ValueError: a number below zero.
    """
    require_at_least(0, known_covariates=known, past_covariates=past, static_covariates=static)
    return CovariateSizes(known, past, static)


class ForecastNetwork(nn.Module):
    """Base of all networks: ``network(x_BTC, marks_BTM, future_marks_BHM) -> Forecast``.

    A subclass takes at least ``channels``, ``context`` and ``horizon``. What it was built with is
    kept in ``init_args``, defaults included, so that a checkpoint can build it again.

    Attributes:
        channels: number of channels C.
        context: number of steps T it looks at.
        horizon: number of steps H it forecasts.
        covariate_sizes: how many covariates of each kind it takes; none unless a subclass says so.
        init_args: the arguments of its constructor.
        quantiles: levels of the quantiles that it forecasts; None for a point forecast.
        uses_calendar: whether it looks at calendar features; where not, nobody has to make them.
    """

    init_args: dict[str, Any]
    covariate_sizes = CovariateSizes()
    quantiles: tuple[float, ...] | None = None
    uses_calendar: bool = True

    def __init__(self, channels: int, context: int, horizon: int) -> None:
        super().__init__()
        require_at_least(1, channels=channels, context=context, horizon=horizon)
        self.channels = channels
        self.context = context
        self.horizon = horizon

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the constructor note its arguments."""
        super().__init_subclass__(**kwargs)
        construct = cls.__init__
        signature = inspect.signature(construct)

        @functools.wraps(construct)
        def construct_and_note(self: "ForecastNetwork", *args: Any, **named: Any) -> None:
            construct(self, *args, **named)  # pyright: ignore[reportArgumentType]
            if type(self) is cls:
                bound = signature.bind(self, *args, **named)
                bound.apply_defaults()
                self.init_args = {k: v for k, v in bound.arguments.items() if k != "self"}

        cls.__init__ = construct_and_note

    def forward(
        self,
        x_BTC: Context,
        marks_BTM: ContextMarks | None = None,
        future_marks_BHM: HorizonMarks | None = None,
        *,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Forecast the horizon of each window.

        Args:
            x_BTC: the context, [batch, context, channels].
            marks_BTM: calendar features of the context, for networks that use them.
            future_marks_BHM: calendar features of the horizon.
            covariates: what else is known, for networks that were built for it.
        """
        raise NotImplementedError

    def token_places(self, layer: str) -> TokenPlaces | None:
        """Return where the tokens of a layer come from, or None where that cannot be said.

        Args:
            layer: a name out of ``named_modules()``.
        """
        return None

    def check_window(self, x_BTC: Tensor) -> None:
        """Refuse a window of another shape than the network was built for.

        Raises:
            ValueError: with the shape given and the shape expected.
        """
        if x_BTC.ndim != 3 or x_BTC.shape[1:] != (self.context, self.channels):
            raise ValueError(
                f"{type(self).__name__} expects windows of [batch, context {self.context}, "
                f"channels {self.channels}], got {list(x_BTC.shape)}"
            )

    def check_covariates(
        self, batch: int, covariates: Covariates | None, horizon: int | None = None
    ) -> None:
        """Refuse covariates of other shapes than the network was built for, or their absence.

        Args:
            batch: number of windows.
            covariates: what was given.
            horizon: steps ahead that covariates have; ``None`` means the network's horizon.

        Raises:
            ValueError: with what was given and what was expected.
        """
        sizes, steps = self.covariate_sizes, self.context + (horizon or self.horizon)
        if covariates is None:
            if any(sizes):
                raise ValueError(
                    f"{type(self).__name__} was built for covariates ({sizes}), got none"
                )
            return
        expected = [
            [batch, steps, sizes.known],
            [batch, self.context, sizes.past],
            [batch, sizes.static],
        ]
        given = [list(one.shape) for one in covariates]
        if given != expected:
            raise ValueError(
                f"{type(self).__name__} expects covariates (known, past, static) of shapes "
                f"{expected}, got {given}"
            )
