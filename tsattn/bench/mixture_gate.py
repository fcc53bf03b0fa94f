"""The checks before a mixture is timed: its three computations are one, and as exact as torch."""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tsattn.bench.gate import Check, budget
from tsattn.bench.mixtures import MIXTURES, let_compete
from tsattn.bench.recipes import Recipe
from tsattn.nn.moe import Computing, MoE

_TOKENS = 301
_STEPS = 8  # rounding steps that a result may differ by in any case


def mixture_checks(
    sizes: Sequence[Recipe], names: Sequence[str], precisions: Sequence[str]
) -> Iterator[Check]:
    """Compare outputs, losses and gradients of every computation with float64, dropout off.

    A mixture with competition is compared at a step at which it competes.
    The truth and the yardstick are all experts on all tokens in plain torch.

    Args:
        sizes: whose widths are checked.
        names: contenders; those that are no mixture are left out.
        precisions: ``float32``, ``bf16``.
    """
    widths = {(size.arguments["d_model"], size.arguments["d_ff"]) for size in sizes}
    for width, hidden in sorted(widths):
        for name in (name for name in names if name in MIXTURES):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                mixture = MIXTURES[name](width, active_d_ff=hidden)
                let_compete(mixture, competes=True)
                x_ND, above_ND = torch.randn(2, _TOKENS, width)
            exact = _results(copy.deepcopy(mixture).double(), "all", x_ND, above_ND, "float32")
            for precision in precisions:
                plain = _results(mixture, "all", x_ND, above_ND, precision)
                dtype = torch.float32 if precision == "float32" else torch.bfloat16
                for computing in (Computing.LOOP, Computing.GROUPED, Computing.AUTO):
                    found = _results(mixture, computing, x_ND, above_ND, precision)
                    title = f"mixture {name} {computing.value} {precision} {width}x{hidden}"
                    yield budget(title, found, exact, [plain], _STEPS * torch.finfo(dtype).eps)


def _results(
    mixture: MoE, computing: str, x_ND: Tensor, above_ND: Tensor, precision: str
) -> list[Tensor]:
    """Return output, losses, and the gradients of tokens and parameters."""
    mixture.computing = Computing(computing)
    mixture.train()
    dtype = next(mixture.parameters()).dtype
    x_ND = x_ND.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        fed = mixture(x_ND)
    losses = list(fed.losses.values())
    handed = [above_ND.to(fed.output.dtype), *(torch.ones_like(loss) for loss in losses)]
    leaves = [x_ND, *mixture.parameters()]
    gradients = torch.autograd.grad([fed.output, *losses], leaves, handed)
    return [t.detach() for t in (fed.output, *losses, *gradients)]
