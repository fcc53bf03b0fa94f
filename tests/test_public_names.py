import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import tsattn.interop.published
import tsattn.metrics
import tsattn.models
import tsattn.nn
import tsattn.nn.moe
import tsattn.ops
from tests.interop.published_plain import draw_patchtst

PUBLIC = (tsattn.models, tsattn.nn, tsattn.nn.moe, tsattn.ops)
HEAVY = (
    "jsonargparse", "lightning", "matplotlib", "neuralforecast", "pandas", "pooch", "sklearn",
    "torch._dynamo", "torchmetrics",
)  # fmt: skip


def members(module: ModuleType) -> dict[str, object]:
    return {name: getattr(module, name) for name in module.__all__}


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_every_public_name_exists_once_in_order(module: ModuleType) -> None:
    names = module.__all__
    assert len(set(names)) == len(names)
    assert members(module).keys() == set(names)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_everything_callable_that_is_public_is_documented(module: ModuleType) -> None:
    silent = [
        name for name, thing in members(module).items() if callable(thing) and not thing.__doc__
    ]
    assert silent == []


def test_the_networks_of_the_issue_are_there_by_name() -> None:
    assert set(tsattn.models.NETWORKS) == {
        "PatchTST", "EncoderDecoderTransformer", "DLinear", "LastValue", "SeasonalNaive",
        "WindowMean",
    }  # fmt: skip
    assert set(tsattn.models.NETWORKS) <= set(tsattn.models.__all__)
    with pytest.raises(TypeError):
        tsattn.models.NETWORKS["Own"] = tsattn.models.DLinear  # pyright: ignore


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """Return which heavy packages each import brings in, in a fresh process."""
    program = f"""
import json, sys
import torch
seen = {{}}
for name in ("tsattn", "tsattn.models", "tsattn.interop.published"):
    __import__(name)
    seen[name] = [package for package in {HEAVY} if package in sys.modules]
print(json.dumps(seen))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=200
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["tsattn", "tsattn.models", "tsattn.interop.published"])
def test_networks_and_exchange_need_torch_alone(name: str, imported: dict[str, list[str]]) -> None:
    assert imported[name] == []


MODULES = [
    "tsattn.ops.attention.api",
    "tsattn.models.patchtst",
    "tsattn.models.transformer",
    "tsattn.nn.moe.baselines",
    "tsattn.nn.moe.compete_smoe",
    "tsattn.nn.moe.competition",
    "tsattn.nn.moe.layer",
    "tsattn.nn.moe.mixture",
    "tsattn.nn.moe.selection",
    "tsattn.interop.published",
    "tsattn.interop.sklearn",
    "tsattn.metrics",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "enc_in": 1, "seq_len": 8, "pred_len": 2, "e_layers": 1, "n_heads": 2, "d_model": 4,
        "d_ff": 4, "patch_len": 4, "stride": 2, "individual": 0, "revin": 1, "affine": 0,
        "subtract_last": 0,
    }  # fmt: skip
    torch.save(draw_patchtst(config), tmp_path / "checkpoint.pth")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    known = {**vars(module), "torch": torch, "config": config}
    examples = doctest.DocTestFinder().find(module, extraglobs=known)
    failures: list[str] = []
    for example in examples:
        doctest.DocTestRunner().run(example, out=failures.append)
    assert failures == []


def test_the_examples_of_the_docstrings_are_found() -> None:
    with_examples = [
        test.name
        for name in MODULES
        for test in doctest.DocTestFinder().find(importlib.import_module(name))
        if test.examples
    ]
    assert "tsattn.ops.attention.api.active_attention" in with_examples
    assert "tsattn.models.patchtst.PatchTST" in with_examples
    assert "tsattn.interop.published.from_state_dict" in with_examples


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert tsattn.__version__ == version("tsattn")
