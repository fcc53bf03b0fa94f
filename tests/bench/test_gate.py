"""The checks before a timing find what is wrong."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tsattn.bench import gate
from tsattn.bench.gate import attention_checks, failures, network_checks, parity_checks
from tsattn.bench.recipes import RECIPES
from tsattn.nn import attention as attention_module
from tsattn.ops import active_attention, self_attention

ILLNESS = next(recipe for recipe in RECIPES if recipe.name == "illness")
ALL = ("reference", "sdpa")


def test_plain_torch_passes() -> None:
    checks = list(attention_checks(ALL))
    assert len(checks) == 2 * 2 * 6 * 2  # dtypes, with and without scores, activations, impls
    assert failures(checks) == []


def _slightly_wrong(*args: object, **options: object) -> object:
    result = active_attention(*args, **options)  # pyright: ignore
    if options["impl"] != "auto":
        return result
    wrong = 1.0001
    return (result[0] * wrong, result[1]) if isinstance(result, tuple) else result * wrong


def _not_a_number(*args: object, **options: object) -> object:
    result = active_attention(*args, **options)  # pyright: ignore
    if options["impl"] != "auto":
        return result
    poisoned = result[0] if isinstance(result, tuple) else result
    return poisoned * float("nan") if options["return_scores"] is False else result


@pytest.mark.parametrize("broken", [_slightly_wrong, _not_a_number])
def test_a_wrong_attention_is_found_and_the_others_are_not_blamed(
    broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "active_attention", broken)
    failed = failures(list(attention_checks(("auto", "sdpa"), ["float32"])))
    assert len(failed) >= 6
    assert all(check.name.startswith("attention auto") for check in failed)
    assert all("allowed" in check.detail for check in failed)


def test_networks_pass_in_both_precisions() -> None:
    checks = list(network_checks(ILLNESS, ALL, ("float32", "bf16")))
    assert len(checks) == 4
    assert failures(checks) == []


def test_a_network_with_a_wrong_attention_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(projections: Sequence[Tensor], *rest: Tensor, **options: object) -> object:
        if options["impl"] == "sdpa":
            projections = [projection * 1.01 for projection in projections]
        return self_attention(projections, *rest, **options)  # pyright: ignore

    monkeypatch.setattr(attention_module, "self_attention", wrong)
    checks = list(network_checks(ILLNESS, ALL, ("float32",)))
    assert [check.name for check in failures(checks)] == ["network illness sdpa float32"]


def test_stored_tensors_of_published_code_are_compared() -> None:
    checks = list(parity_checks(["auto"]))
    assert len(checks) == 5
    assert failures(checks) == []


def test_the_checks_do_not_depend_on_the_random_stream() -> None:
    first = [check.detail for check in attention_checks(["sdpa"], ["float32"])]
    torch.rand(3)
    assert [check.detail for check in attention_checks(["sdpa"], ["float32"])] == first
