"""Graphs in onnxruntime itself: the network's forecasts, for any number of windows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from tests.forecast.conftest import Train
from tests.forecast.made import long_frame, wide_frame
from tsattn.cli import main
from tsattn.data import calendar_marks
from tsattn.errors import ConfigError, MissingExtraError
from tsattn.forecast import Forecaster, onnx_graph
from tsattn.forecast.export import export
from tsattn.forecast.onnx_graph import write_onnx
from tsattn.forecast.trained import Trained
from tsattn.models import EncoderDecoderTransformer, ForecastNetwork, PatchTST
from tsattn.nn import moe
from tsattn.nn.parts import build_feedforward, build_part
from tsattn.ops import VALUE_ACTIVATIONS
from tsattn.resources import configs_dir
from tsattn.training.artifact import read_record

runtime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.unchecked  # what is traced must not be wrapped in checks


def session(path: Path) -> Any:
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def patchtst(**options: Any) -> ForecastNetwork:
    sizes = {"patch_length": 4, "stride": 2, "d_model": 16, "num_heads": 2, "d_ff": 24}
    return PatchTST(3, 12, 4, **{"num_layers": 1, **sizes, **options})


def transformer(**options: Any) -> ForecastNetwork:
    sizes = {"encoder_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 24}
    return EncoderDecoderTransformer(3, 12, 4, calendar_features=4, **sizes, **options)


@pytest.fixture(scope="session")
def trained(wide: Forecaster) -> Trained:
    return wide.trained


def require_same(
    path: Path, network: ForecastNetwork, trained: Trained, windows: int, seed: int = 3
) -> None:
    """Compare with numbers that are standardised here, in numpy, in float64."""
    random = np.random.default_rng(seed)
    mean, scale = trained.scaler.mean_SC.numpy(), trained.scaler.scale_SC.numpy()
    x_BTC = random.normal(size=(windows, network.context, 3)).cumsum(axis=1)
    given: dict[str, Any] = {"window": x_BTC * scale + mean}
    marks: list[torch.Tensor] = []
    if isinstance(network, EncoderDecoderTransformer):
        for name, steps in (("marks", network.context), ("future_marks", network.horizon)):
            given[name] = random.uniform(-0.5, 0.5, (windows, steps, 4)).astype(np.float32)
            marks.append(torch.from_numpy(given[name]))
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(x_BTC).float(), *marks).mean.numpy()
    (found,) = session(path).run(["forecast"], given)
    assert found.dtype == np.float64
    np.testing.assert_allclose((found - mean) / scale, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("build", "activation"),
    [(patchtst, name) for name in VALUE_ACTIVATIONS]
    + [
        pytest.param(transformer, name, marks=() if name == "tanh" else pytest.mark.slow)
        for name in VALUE_ACTIVATIONS
    ],
)
def test_every_activation_and_batch_size_agrees_with_the_network(
    trained: Trained, tmp_path: Path, build: Callable[..., ForecastNetwork], activation: str
) -> None:
    torch.manual_seed(1)
    layers = {"num_layers": 2} if build is patchtst and activation == "tanh" else {}
    network = build(value_activation=activation, **layers)
    said = write_onnx(tmp_path / "model.onnx", network, trained)
    assert said.largest_difference <= 1e-4
    for windows in (1, 3, 8, 65):
        require_same(tmp_path / "model.onnx", network, trained, windows)


GATES = ("SigmoidGate", "QuadraticPolynomialGate", "QuadraticMonomialGate", "CosineGate",
         "PerturbedCosineGate", "DenseToSparseGate", "HierarchicalGate")  # fmt: skip


@pytest.mark.parametrize(
    "gate", ["LinearGate", *(pytest.param(gate, marks=pytest.mark.slow) for gate in GATES)]
)
def test_mixtures_agree_with_the_network(trained: Trained, tmp_path: Path, gate: str) -> None:
    torch.manual_seed(2)
    kind = getattr(moe, gate)
    chosen = partial(kind, groups=2) if gate == "HierarchicalGate" else kind
    mixture = partial(moe.MoE, gate=chosen, num_experts=4, top_k=2, computing="loop")
    for build in (patchtst, transformer) if gate == "LinearGate" else (patchtst,):
        network = build(feedforward=mixture)
        write_onnx(tmp_path / "model.onnx", network, trained)
        for windows in (1, 7):
            require_same(tmp_path / "model.onnx", network, trained, windows)


def shipped_mixtures() -> dict[str, Callable[..., nn.Module]]:
    """The feed-forwards of the recipes with mixtures, but for the gate that has no operator."""

    def description(given: dict[str, Any]) -> dict[str, Any]:
        arguments = {
            name: description(value) if isinstance(value, dict) else value
            for name, value in given.get("init_args", {}).items()
        }
        return {"class": given["class_path"], "arguments": arguments}

    found: dict[str, Callable[..., nn.Module]] = {}
    for path in sorted((configs_dir() / "moe").glob("*_etth1.yaml")):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = settings["model"]["network"]["init_args"]["feedforward"]
        if "GaussianGate" not in str(given):
            found[path.stem] = build_part(description(given))
    return found


@pytest.mark.parametrize(
    "recipes", ["shared_v3", pytest.param("", marks=pytest.mark.slow, id="all")]
)
def test_routers_of_the_recipes_agree_with_the_network(
    trained: Trained, tmp_path: Path, recipes: str
) -> None:
    torch.manual_seed(5)
    mixtures = [mixture for name, mixture in shipped_mixtures().items() if recipes in name]
    assert len(mixtures) == (1 if recipes else 11)
    mixtures.append(partial(moe.MoE, num_experts=8, top_k=5))
    network = patchtst(num_layers=len(mixtures))
    for index, mixture in enumerate(mixtures):
        network.set_submodule(f"layers.{index}.feedforward", build_feedforward(mixture, 16, 24, 0))
    for name, bias in network.named_buffers():
        if name.endswith("bias_E"):
            bias.uniform_(-0.2, 0.2)
    write_onnx(tmp_path / "model.onnx", network, trained)
    require_same(tmp_path / "model.onnx", network, trained, 7)


def test_part_without_an_operator_is_named(trained: Trained, tmp_path: Path) -> None:
    network = patchtst(feedforward=partial(moe.MoE, gate=moe.GaussianGate, num_experts=4))
    with pytest.raises(ConfigError, match=r"layers\.0\.feedforward\.gate \(GaussianGate\).*triang"):
        write_onnx(tmp_path / "model.onnx", network, trained)
    assert list(tmp_path.iterdir()) == []


def test_operation_that_the_exporter_does_not_know_is_named(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "_NO_OPERATOR", {})
    network = patchtst(feedforward=partial(moe.MoE, gate=moe.GaussianGate, num_experts=4))
    with pytest.raises(ConfigError, match=r"torch's aten\.linalg_solve_triangular"):
        write_onnx(tmp_path / "model.onnx", network, trained)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 3, "value_activation": "tanh"},
        {"norm": "layer", "prenorm": True, "end_padding": False},
        {"individual_head": True},
        {"revin_affine": True, "subtract_last": True},
        {"revin": False},
        {"recompute": True},
    ],
    ids=str,
)
def test_variants_of_patchtst_agree(
    trained: Trained, tmp_path: Path, options: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    network = patchtst(**options)
    write_onnx(tmp_path / "model.onnx", network, trained)
    require_same(tmp_path / "model.onnx", network, trained, 5)


def test_quantiles_are_an_output_of_their_own(trained: Trained, tmp_path: Path) -> None:
    torch.manual_seed(4)
    network = patchtst(quantiles=[0.1, 0.5, 0.9])
    said = write_onnx(tmp_path / "model.onnx", network, trained)
    assert list(said.outputs) == ["forecast", "quantiles"]
    mean, scale = trained.scaler.mean_SC.numpy(), trained.scaler.scale_SC.numpy()
    x_BTC = np.random.default_rng(0).normal(size=(3, 12, 3))
    with torch.inference_mode():
        made = network.eval()(torch.from_numpy(x_BTC).float())
    forecast, quantiles = session(tmp_path / "model.onnx").run(
        None, {"window": x_BTC * scale + mean}
    )
    assert made.quantiles is not None
    np.testing.assert_allclose((forecast - mean) / scale, made.mean.numpy(), atol=1e-4)
    unit = scale[..., np.newaxis]
    np.testing.assert_allclose((quantiles - mean[..., None]) / unit, made.quantiles, atol=1e-4)


def test_graph_in_an_export_gives_the_forecast_of_the_command(train: Train, tmp_path: Path) -> None:
    frame = wide_frame()
    calendar = ["hour_of_day", "day_of_week"]
    file = train(
        frame,
        calendar=calendar,
        build=lambda data: EncoderDecoderTransformer(
            3, 12, 4, d_model=8, num_heads=2, d_ff=8, calendar_features=2
        ),
    )
    out = tmp_path / "out"
    assert main(["export", str(file), "--out", str(out), "--onnx"]) == 0
    expected = Forecaster.load(out).predict(frame)
    times = pd.DatetimeIndex(pd.concat([frame["date"].iloc[-12:], expected["date"]]))
    marks = calendar_marks(times, calendar).numpy()[np.newaxis]
    (found,) = session(out / "model.onnx").run(
        None,
        {
            "window": frame[["a", "b", "c"]].to_numpy()[np.newaxis, -12:],
            "marks": marks[:, :12],
            "future_marks": marks[:, 12:],
        },
    )
    scale = frame[["a", "b", "c"]].std().to_numpy()
    np.testing.assert_allclose(found[0] / scale, expected[["a", "b", "c"]] / scale, atol=1e-4)
    said = read_record(out)["onnx"]
    assert list(said["inputs"]) == ["window", "marks", "future_marks"]
    assert said["opset"] == 20
    assert "opset 20" in (out / "README.md").read_text(encoding="utf-8")


def test_series_of_a_long_table_have_their_own_scale(train: Train, tmp_path: Path) -> None:
    frame = long_frame()
    file = train(frame)
    export(file, tmp_path / "out", with_onnx=True)
    expected = Forecaster.load(file).predict(frame)
    groups = frame.groupby("unique_id", sort=False)["y"]
    windows = np.stack([group.to_numpy()[-12:, np.newaxis] for _, group in groups])
    (found,) = session(tmp_path / "out" / "model.onnx").run(
        None, {"window": windows, "series": np.arange(3)}
    )
    np.testing.assert_allclose(found.reshape(-1), expected["y"], rtol=1e-5)


def test_graph_says_what_it_is_and_nothing_of_this_machine(train: Train, tmp_path: Path) -> None:
    export(train(wide_frame()), tmp_path / "out", with_onnx=True)
    meta = session(tmp_path / "out" / "model.onnx").get_modelmeta()
    assert meta.producer_name == "tsattn"
    assert meta.custom_metadata_map["channels"].split("\n") == ["a", "b", "c"]
    content = (tmp_path / "out" / "model.onnx").read_bytes()
    for word in (Path.home(), Path(torch.__file__).parent, Path(__file__).parents[2], ".py"):
        assert str(word).encode() not in content, word


def test_graph_that_forecasts_otherwise_is_not_written(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match="onnxruntime forecasts otherwise than the network"):
        export(train(wide_frame()), tmp_path / "out", with_onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_name_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsattn\[onnx\]'"):
        export(tmp_path / "run", tmp_path / "out", with_onnx=True)


def test_network_stays_as_it_was(trained: Trained, tmp_path: Path) -> None:
    network = patchtst(attention_impl="auto")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    write_onnx(tmp_path / "model.onnx", network, trained)
    assert network.layers[0].attention.impl == "auto"  # pyright: ignore
    assert isinstance(network, PatchTST)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_number_of_windows_is_called_batch(train: Train, tmp_path: Path) -> None:
    made = export(train(long_frame()), tmp_path / "out", with_onnx=True).onnx
    assert made is not None
    assert made["inputs"]["window"] == "tensor(double) ['batch', 12, 1]"
    assert made["inputs"]["series"] == "tensor(int64) ['batch']"
    assert made["outputs"]["forecast"] == "tensor(double) ['batch', 4, 1]"
    import onnx

    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    sizes = {
        size.dim_param
        for value in (*graph.input, *graph.output, *graph.value_info)
        for size in value.type.tensor_type.shape.dim
    }
    assert all("batch" in size for size in sizes - {""})
