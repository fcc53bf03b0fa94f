"""A network as an ONNX graph: tensors in original units in, tensors in original units out.

The scaler is part of the graph, in float64 as in `tsattn.Forecaster`; between it and the forecast
everything is float32. The graph is traced through the references of all operations, takes any
number of windows, and is compared with the network in onnxruntime before it counts as written.
"""

import copy
import logging
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsattn.data.steps import encode_step
from tsattn.errors import ConfigError, MissingExtraError
from tsattn.forecast.trained import Trained
from tsattn.models import ForecastNetwork
from tsattn.nn import EncoderLayer, MultiHeadActiveAttention
from tsattn.nn.moe.dispatch import Computing
from tsattn.ops import Impl, build

OPSET = 20
TOLERANCE = 1e-4
"""How far onnxruntime may be from the network, in standard deviations of the training rows."""

_BATCHES = (1, 2, 5, 32)
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_NO_OPERATOR: Mapping[str, str] = {
    "GaussianGate": "it solves triangular systems of equations, which ONNX has no operator for",
}


@dataclass(frozen=True)
class Signature:
    """What a graph takes and returns, and how it was checked.

    Attributes:
        opset: version of ONNX's operators.
        inputs: type and axes of every input, by name.
        outputs: those of every output.
        units: what the numbers mean.
        largest_difference: from the network, in standard deviations of the training rows.
        batches: numbers of windows that were compared.
        versions: of the packages that wrote and ran it.
    """

    opset: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    units: str
    largest_difference: float
    batches: tuple[int, ...]
    versions: dict[str, str]

    def record(self) -> dict[str, Any]:
        """Return it in plain values."""
        return asdict(self) | {"batches": list(self.batches)}


class InOriginalUnits(nn.Module):
    """Standardise windows, forecast, and undo that.

    Args:
        network: the network, in evaluation mode.
        trained: what it was trained on.
    """

    mean_SC: Tensor
    scale_SC: Tensor

    def __init__(self, network: ForecastNetwork, trained: Trained) -> None:
        super().__init__()
        self.network = network
        series = network.channels != len(trained.names) or trained.layout == "long"
        shape = (-1, 1) if series else (1, -1)
        self.register_buffer("mean_SC", trained.scaler.mean_SC.reshape(shape).clone())
        self.register_buffer("scale_SC", trained.scaler.scale_SC.reshape(shape).clone())

    def forward(
        self,
        window: Tensor,
        marks: Tensor | None = None,
        future_marks: Tensor | None = None,
        series: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the forecast [B, H, C], and quantiles [B, H, C, Q] where the network has some."""
        mean, scale = self.mean_SC[None], self.scale_SC[None]
        if series is not None:
            mean, scale = self.mean_SC[series][:, None], self.scale_SC[series][:, None]
        made = self.network(((window - mean) / scale).float(), marks, future_marks)
        forecast = made.mean.double() * scale + mean
        if made.quantiles is None:
            return (forecast,)
        return forecast, made.quantiles.double() * scale[..., None] + mean[..., None]


def write_onnx(path: Path, network: ForecastNetwork, trained: Trained) -> Signature:
    """Write a network as ``path``, and compare it with onnxruntime.

    Inputs: ``window`` float64 [batch, context, channels], in original units and the trained order
    of channels; ``marks`` and ``future_marks`` float32 [batch, context or horizon, features] where
    the network sees a calendar; ``series`` int64 [batch], the place among the trained series, where
    it was trained on a long table. Outputs: ``forecast`` float64 [batch, horizon, channels], and
    ``quantiles`` [batch, horizon, channels, levels] where they were trained.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ConfigError: a part of the network that ONNX cannot express, named, or a graph whose
            forecasts differ by more than `TOLERANCE`.
    """
    require_onnx()
    _refuse_parts(network)
    network = copy.deepcopy(network).eval()
    whole = InOriginalUnits(_traceable(network), trained).eval()
    drawn = _draw(network, trained, 2)
    with _quietly(), build.plain_torch(), torch.no_grad():
        try:
            outputs = ["forecast", "quantiles"][: len(whole(**drawn))]
            batch = torch.export.Dim("batch")
            program = torch.export.export(
                whole, (), kwargs=drawn, dynamic_shapes={name: {0: batch} for name in drawn}
            )
            made: Any = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, output_names=outputs, verbose=False
            )
        except Exception as error:  # the exporter fails in many ways
            raise ConfigError(
                f"this {type(network).__name__} cannot be exported to ONNX: {_reason(error)}; "
                "export it without --onnx"
            ) from error
    _describe(made.model, network, trained)
    _name_batch(made.model)
    made.save(str(path))
    return _checked(path, network, trained, outputs)


def require_onnx() -> None:
    """Refuse where the packages are missing.

    Raises:
        MissingExtraError: naming the extra.
    """
    try:
        import onnx  # noqa: F401 (the exporter needs it)
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"--onnx needs onnx, onnxscript and onnxruntime ({error}): pip install 'tsattn[onnx]'"
        ) from error


def _traceable(network: ForecastNetwork) -> ForecastNetwork:
    """Return a copy whose operations are computed by their references, of any number of tokens."""
    copied = copy.deepcopy(network)
    for part in copied.modules():
        if isinstance(part, MultiHeadActiveAttention):
            part.impl = Impl.REFERENCE
        if isinstance(part, EncoderLayer):
            part.recompute = False  # the same numbers; slices of a training would fix the batch
        if hasattr(part, "computing"):
            # every expert on every token: sizes do not depend on the choice
            setattr(part, "computing", Computing.ALL)  # noqa: B010 (modules differ)
    return copied


def _refuse_parts(network: ForecastNetwork) -> None:
    if any(network.covariate_sizes):
        raise ConfigError(
            f"this {type(network).__name__} takes covariates ({network.covariate_sizes}), and the "
            "ONNX graph has no inputs for them; export it without --onnx"
        )
    for name, part in network.named_modules():
        kind = type(part).__name__
        if kind in _NO_OPERATOR:
            raise ConfigError(
                f"this {type(network).__name__} cannot be exported to ONNX because of its part "
                f"{name} ({kind}): {_NO_OPERATOR[kind]}; export it without --onnx"
            )


def _draw(network: ForecastNetwork, trained: Trained, batch: int) -> dict[str, Tensor]:
    """Draw windows that wander like data, in original units, and what goes with them."""
    generator = torch.Generator().manual_seed(batch)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    wrapped = InOriginalUnits(network, trained)
    drawn: dict[str, Tensor] = {}
    walks_BTC = normal(batch, network.context, network.channels).cumsum(1) / network.context**0.5
    mean, scale = wrapped.mean_SC[None], wrapped.scale_SC[None]
    if trained.layout == "long":
        drawn["series"] = torch.arange(batch) % len(trained.names)
        mean, scale = (part[0][drawn["series"]][:, None] for part in (mean, scale))
    drawn = {"window": walks_BTC * scale + mean} | drawn
    if features := getattr(network, "calendar_features", 0):
        for name, steps in (("marks", network.context), ("future_marks", network.horizon)):
            drawn[name] = torch.rand(batch, steps, features, generator=generator) - 0.5
    return drawn


def _describe(model: Any, network: ForecastNetwork, trained: Trained) -> None:
    """Say in the graph what it is, and nothing of the machine that wrote it."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name, model.producer_version = "tsattn", version("tsattn")
    names = trained.names
    model.metadata_props.clear()
    model.metadata_props.update(
        network=type(network).__name__,
        channels="\n".join(names if trained.layout == "wide" else ("y",)),
        series="\n".join(names if trained.layout == "long" else ()),
        step=encode_step(trained.step),
        calendar=",".join(trained.calendar),
        units="original",
    )


def _name_batch(model: Any) -> None:
    """Call the number of windows ``batch``, which the exporter knows by a sign such as ``s3``."""
    sign = re.compile(rf"\b{re.escape(str(model.graph.inputs[0].shape[0]))}\b")
    made = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in (*model.graph.inputs, *model.graph.outputs, *made):
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int):
                value.shape[axis] = sign.sub("batch", str(size))


def _checked(
    path: Path, network: ForecastNetwork, trained: Trained, outputs: list[str]
) -> Signature:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    whole = InOriginalUnits(network, trained)
    largest = 0.0
    for batch in _BATCHES:
        drawn = _draw(network, trained, batch)
        with torch.inference_mode():
            expected = whole(**drawn)
        found = session.run(outputs, {name: one.numpy() for name, one in drawn.items()})
        scale = whole.scale_SC[drawn["series"]][:, None] if "series" in drawn else whole.scale_SC
        for theirs, ours in zip(found, expected, strict=True):
            unit = scale if ours.ndim == 3 else scale[..., None]
            apart = np.abs(np.asarray(theirs) - ours.numpy()) / unit.numpy()
            largest = max(largest, float(apart.max()))
    if not largest <= TOLERANCE:  # so written, a NaN is too far
        raise ConfigError(
            f"onnxruntime forecasts otherwise than the network, by {largest:.1e} standard "
            f"deviations where {TOLERANCE:.0e} is allowed; export it without --onnx, and please "
            "report this"
        )
    return Signature(
        OPSET,
        {one.name: f"{one.type} {one.shape}" for one in session.get_inputs()},
        {one.name: f"{one.type} {one.shape}" for one in session.get_outputs()},
        "original units of the data; marks as tsattn.data.calendar_marks gives them",
        largest,
        _BATCHES,
        {name: version(name) for name in _PACKAGES} | {"torch": version("torch")},
    )


def _reason(error: BaseException) -> str:
    """Return the first cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
    if found:
        return f"ONNX has no operator for torch's {found.group(1)}"
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


@contextmanager
def _quietly() -> Generator[None, None, None]:
    """Leave out what the exporter says of packages that it would also have operators for."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
