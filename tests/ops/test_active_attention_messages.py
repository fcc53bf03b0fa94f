from typing import Any

import pytest
import torch

from tsattn.ops import Impl, active_attention

pytestmark = pytest.mark.unchecked  # the messages are the project's own, not jaxtyping's

GOOD = {"q": (2, 3, 4, 8), "k": (2, 3, 5, 8), "v": (2, 3, 5, 6)}


def attend(arguments: dict[str, Any], **shapes: tuple[int, ...]) -> None:
    q, k, v = (torch.randn((GOOD | shapes)[name]) for name in "qkv")
    active_attention(q, k, v, **arguments)


@pytest.mark.parametrize(
    "shapes",
    [
        {"q": (3, 4, 8)},
        {"q": (1, 3, 4, 8)},
        {"k": (2, 1, 5, 8)},
        {"k": (2, 3, 5, 7)},
        {"v": (2, 3, 4, 6)},
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_named(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="got q") as error:
        attend({}, **shapes)
    for shape in (GOOD | shapes).values():
        assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("name", ["prev_scores", "mask"])
def test_scores_and_masks_of_another_shape_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 5\].*got \[2, 3, 5, 4\]"):
        attend({name: torch.randn(2, 3, 5, 4)})


def test_a_mask_of_more_dimensions_than_the_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="mask must broadcast"):
        attend({"mask": torch.ones(1, 2, 3, 4, 5, dtype=torch.bool)})


def test_previous_scores_are_not_broadcast() -> None:
    with pytest.raises(ValueError, match="prev_scores must be"):
        attend({"prev_scores": torch.zeros(1, 1, 4, 5)})


def test_a_mask_of_integers_is_refused_instead_of_added() -> None:
    with pytest.raises(ValueError, match=r"boolean .* or floating .*torch\.int64"):
        attend({"mask": torch.ones(4, 5, dtype=torch.int64)})


def test_different_dtypes_are_named() -> None:
    q = torch.randn(1, 1, 2, 4)
    with pytest.raises(ValueError, match=r"torch\.float32 on cpu, torch\.float64 on cpu"):
        active_attention(q, q.double(), q)


def test_different_devices_are_named() -> None:
    q = torch.randn(1, 1, 2, 4)
    with pytest.raises(ValueError, match=r"share dtype and device.* on meta"):
        active_attention(q, q, q.to("meta"))


@pytest.mark.parametrize("impl", ["auto", "reference", "sdpa"])
@pytest.mark.parametrize("name", ["prev_scores", "mask"])
def test_scores_and_masks_on_another_device_are_named(name: str, impl: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be on cpu, as q is, and is on meta"):
        attend({name: torch.zeros(2, 3, 4, 5, device="meta"), "impl": impl})


def test_previous_scores_of_integers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prev_scores must be floating, got torch\.int64"):
        attend({"prev_scores": torch.zeros(2, 3, 4, 5, dtype=torch.int64)})


def test_queries_of_integers_are_refused() -> None:
    q = torch.ones(1, 1, 2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"must be floating, got torch\.int64"):
        active_attention(q, q, q)


def test_heads_without_any_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one wide, got q \[2, 3, 4, 0\]"):
        attend({}, q=(2, 3, 4, 0), k=(2, 3, 5, 0))


@pytest.mark.parametrize("impl", list(Impl))
@pytest.mark.parametrize(
    ("activation", "message"),
    [("tanhh", "unknown value_activation 'tanhh'; expected one of identity, relu"), (3, "got int")],
)
def test_an_unknown_activation_is_refused_by_every_implementation(
    activation: Any, message: str, impl: Impl
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        attend({"activation": activation, "impl": impl})


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=f"dropout_p must be in .*got {p}"):
        attend({"dropout_p": p})


def test_an_unknown_implementation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown impl 'flash'") as error:
        attend({"impl": "flash"})
    assert all(name in str(error.value) for name in Impl)


def test_an_activation_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"elementwise.*\[2, 3, 5, 6\] into \[2, 3, 5, 3\]"):
        attend({"activation": torch.nn.GLU()})
