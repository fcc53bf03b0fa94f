"""Branches of a layer that keep their tokens alone and are computed again in the backward pass.

A branch maps every sequence of tokens by itself, so it is computed a slice of sequences at a time,
forwards and backwards: beside tokens and their gradients, memory holds the inside of one slice.
Normalisations over the batch stand outside of branches, and run once.
"""

# Torch's autograd functions carry no types, and a decorated backward has another first argument.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from tsattn.ops.build import is_withheld, plain_torch

SLICE_TOKENS = 2**13
"""Tokens of a slice: work for every core, and little beside a batch that needs this."""


class Made(NamedTuple):
    """What a branch makes of tokens.

    Attributes:
        output: tokens [B, L, D].
        link: a tensor [B, ...] that holds no numbers and carries gradients from a later branch back
            to this one, or None.
    """

    output: Tensor
    link: Tensor | None


def recomputed(
    run: Callable[..., Made],
    parameters: Sequence[Tensor],
    x_BLD: Tensor,
    link: Tensor | None = None,
    more: Sequence[Tensor] = (),
) -> Made:
    """Return ``run(x, link, *more)``, of which only the tokens are kept for the backward pass.

    Autocast and random numbers are the same in both passes. The gradient of a parameter is the sum
    over slices; where one slice is enough, everything is bit for bit as without recomputation.

    Args:
        run: the branch; it is called with slices, and has to do the same in both passes.
        parameters: those of the branch.
        x_BLD: its tokens.
        link: carries its gradients to an earlier branch.
        more: tokens [B, ...] of earlier branches, for which it returns no gradient.
    """
    from tsattn.nn.uncompiled import apply_branch  # imports the compiler, which few need

    return Made(*apply_branch(run, len(parameters), x_BLD, link, *parameters, *more))


class Recomputed(torch.autograd.Function):
    """A branch, slice by slice."""

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Made], num_parameters: int, x: Tensor, link: Tensor | None,
        *others: Tensor,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Run the branch on one slice after the other."""
        ctx.run, ctx.num_parameters = run, num_parameters
        ctx.surroundings = surroundings = _Surroundings(x)
        ctx.slices = _slices(x)
        ctx.save_for_backward(x, link, *others)
        ctx.set_materialize_grads(False)
        output: Tensor | None = None
        next_link: Tensor | None = None
        for rows in ctx.slices:
            with surroundings.autocast():
                made = run(*_parts((x, link, *others[num_parameters:]), rows))
            output = _placed(output, made.output, rows, len(x))
            if made.link is not None:
                next_link = made.link.new_zeros(()).expand(len(x), *made.link.shape[1:])
        assert output is not None
        return output, next_link

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run it again, and differentiate."""
        x, link, *others = cast(list[Any], ctx.saved_tensors)
        parameters, more = others[: ctx.num_parameters], others[ctx.num_parameters :]
        found: list[Tensor | None] = [None] * (2 + len(parameters))
        with ctx.surroundings.replayed():
            for rows in ctx.slices:
                x_rows, link_rows, *more_rows = _parts((x, link, *more), rows)
                inputs = [_leaf(x_rows, x), _leaf(link_rows, link)]
                with ctx.surroundings.autocast(), torch.enable_grad():
                    made = ctx.run(*inputs, *more_rows)
                parts = _gradients(made, _parts(grads, rows), [*inputs, *parameters])
                for index, part in enumerate(parts):
                    join = _placed if index < 2 else _summed
                    found[index] = join(found[index], part, rows, len(x))
        return None, None, *found, *(None for _ in more)


class _Surroundings:
    """Autocast, random streams and kernels of a forward pass, for the same to happen once more."""

    def __init__(self, x: Tensor) -> None:
        self.kind = x.device.type
        self.narrow = torch.is_autocast_enabled(self.kind), torch.get_autocast_dtype(self.kind)
        self.plain = is_withheld()
        self.stream = torch.get_rng_state()
        self.devices, self.device_streams = get_device_states(x)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in the same precision; narrowed weights are not shared, they would lack a graph.

        In the forward pass they are narrowed without autograd.
        """
        enabled, dtype = self.narrow
        return torch.autocast(self.kind, dtype, enabled=enabled, cache_enabled=False)

    @contextmanager
    def replayed(self) -> Generator[None, None, None]:
        """Draw the same random numbers again, and go on afterwards as if none had been drawn."""
        kernels = plain_torch(self.plain)
        with kernels, torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.stream)
            set_device_states(self.devices, self.device_streams, device_type=self.kind)
            yield


def _slices(x_BLD: Tensor) -> list[slice]:
    rows = max(1, SLICE_TOKENS // max(1, x_BLD.shape[1]))
    return [slice(start, start + rows) for start in range(0, max(1, len(x_BLD)), rows)]


def _parts(tensors: Sequence[Tensor | None], rows: slice) -> list[Tensor | None]:
    return [None if tensor is None else tensor[rows] for tensor in tensors]


def _leaf(part: Tensor | None, whole: Tensor | None) -> Tensor | None:
    """Return a slice at which a graph begins, where the whole needs a gradient."""
    if part is None or whole is None:
        return None
    return part.detach().requires_grad_(whole.requires_grad)


def _gradients(
    made: Made, grads: Sequence[Tensor | None], sources: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Differentiate what was made, where a gradient arrived, by the sources that need one."""
    ends = [(o, g) for o, g in zip(made, grads, strict=True) if o is not None and g is not None]
    wanted = [source for source in sources if source is not None and source.requires_grad]
    if not ends or not wanted:
        return [None] * len(sources)
    outputs, above = zip(*ends, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, above, allow_unused=True))
    return [next(found) if s is not None and s.requires_grad else None for s in sources]


def _placed(whole: Tensor | None, part: Tensor | None, rows: slice, length: int) -> Tensor | None:
    """Put a slice where it belongs in a tensor of ``length`` rows, made with the first slice."""
    if part is None or len(part) == length:
        return part
    if whole is None:
        whole = part.new_empty(length, *part.shape[1:])
    whole[rows] = part
    return whole


def _summed(total: Tensor | None, part: Tensor | None, *_: Any) -> Tensor | None:
    return part if total is None else total if part is None else total.add_(part)
