import math
from collections.abc import Callable

import pytest
import torch

from tsattn.ops import VALUE_ACTIVATIONS
from tsattn.ops.activations import activate, as_function

POINTS = (-3.0, -0.5, 0.0, 0.25, 2.0)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("identity", lambda x: x),
        ("relu", lambda x: max(x, 0.0)),
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
    ],
)
def test_a_name_means_its_formula(name: str, formula: Callable[[float], float]) -> None:
    given = torch.tensor(POINTS, dtype=torch.float64)
    assert activate(name, given).tolist() == pytest.approx([formula(x) for x in POINTS], rel=1e-12)


def test_the_six_names_are_those_of_the_paper() -> None:
    assert set(VALUE_ACTIVATIONS) == {"identity", "relu", "gelu", "silu", "tanh", "sigmoid"}


def test_a_callable_or_a_module_is_taken_as_it_is() -> None:
    module = torch.nn.PReLU()
    assert as_function(torch.sin) is torch.sin
    assert as_function(module) is module


@pytest.mark.parametrize("name", ["tanhh", "Tanh", "linear", ""])
def test_an_unknown_name_is_refused_with_the_six_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown value_activation '{name}'") as error:
        as_function(name)
    assert all(known in str(error.value) for known in VALUE_ACTIVATIONS)


@pytest.mark.unchecked
def test_what_is_neither_a_name_nor_a_callable_is_refused() -> None:
    with pytest.raises(TypeError, match="a name or a callable, got float"):
        as_function(0.5)  # pyright: ignore[reportArgumentType]


def test_the_table_of_names_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        VALUE_ACTIVATIONS["relu"] = torch.tanh  # pyright: ignore[reportIndexIssue]
