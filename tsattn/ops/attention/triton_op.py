"""Active attention through the Triton kernels: the operation, its gradient, its launches.

Nothing here imports triton: `tsattn.ops.attention.fused_triton` does, when a kernel is first run.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

_LARGEST_SEED = 2**63 - 1


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    activation: str,
    prev_scores: Tensor | None,
    return_scores: bool,
    mask: Tensor | None,
    is_causal: bool,
    dropout_p: float,
    scale: float,
) -> tuple[Tensor, Tensor | None]:
    """Run the kernels; under autocast in its dtype, as torch's own attention does.

    Args as in `tsattn.ops.active_attention`; ``activation`` is one of the six names. The seed of
    the dropout comes from torch's generator, as a tensor: nothing waits for the device.
    """
    kind = q.device.type
    if torch.is_autocast_enabled(kind) and q.dtype != torch.float64:
        q, k, v = (t.to(torch.get_autocast_dtype(kind)) for t in (q, k, v))
    seed = None
    if dropout_p > 0:
        seed = torch.randint(_LARGEST_SEED, (1,), dtype=torch.int64, device=q.device)
    output, scores, _ = active_attention_triton(
        q, k, v, prev_scores, mask, seed, activation, return_scores, is_causal, dropout_p, scale
    )
    return output, scores if return_scores else None


class Tiles(NamedTuple):
    """How a problem is cut.

    ``queries`` and ``keys`` are the lengths of a tile, ``width`` and ``value_width`` the padded
    widths, all powers of two from 16; ``warps`` are the threads of a program, in 32s. A short
    problem has all its queries in one tile, and one program computes all gradients of a head.
    """

    queries: int
    keys: int
    width: int
    value_width: int
    warps: int
    is_short: bool


def choose_tiles(q: Tensor, k: Tensor, v: Tensor) -> Tiles:
    """Return the largest tiles that the compiler fits into registers, see the design record 0006.

    They were found by compiling for compute capability 8.0 and 9.0, not by measuring time.
    """
    width, value_width = _padded(q.shape[3]), _padded(v.shape[3])
    bytes_wide = (width + value_width) * q.element_size()
    if bytes_wide <= 192:
        longest, keys = 64, 16
    elif bytes_wide <= 512:
        longest, keys = 32, 32
    else:
        longest, keys = 16, 16
    queries = min(longest, _padded(q.shape[2]))
    is_short = max(q.shape[2], k.shape[2]) <= 64 and q.shape[2] <= queries
    narrow = max(1, queries * q.element_size() // 32)  # exact products need twice the registers
    warps = narrow if longest == 64 else (8 if bytes_wide > 256 else 4)
    return Tiles(queries, keys, width, value_width, warps, is_short)


def _kernels() -> Any:
    from tsattn.ops.attention import fused_triton  # imports triton: here, and not before

    return fused_triton


def _padded(length: int) -> int:
    return max(16, 1 << (length - 1).bit_length())


@torch.library.custom_op("tsattn::active_attention_triton", mutates_args=())
def active_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prev: Tensor | None,
    mask: Tensor | None,
    seed: Tensor | None,
    activation: str,
    return_scores: bool,
    is_causal: bool,
    dropout_p: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, the raw scores (empty unless asked for) and the log-sum-exp [B, N, Q]."""
    kernels = _kernels()
    output, scores, lse = _allocate_forward(q, k, v, return_scores)
    tiles = choose_tiles(q, k, v)
    arguments = _inputs(q, k, v, prev, mask, seed)
    arguments |= _settings(q, v, tiles, activation, is_causal, dropout_p, scale)
    arguments |= _strided(out=output, scores=scores if return_scores else None) | {"lse": lse}
    programs = _programs(q, q.shape[2], tiles.queries)
    kernels.launch(kernels.forward, programs, arguments, tiles.warps)
    return output, scores, lse


@active_attention_triton.register_fake  # pyright: ignore[reportUnknownMemberType]
def _(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _allocate_forward(q, k, v, return_scores=rest[4])


def _allocate_forward(
    q: Tensor, k: Tensor, v: Tensor, return_scores: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, _ = q.shape
    # The heads of one position lie side by side, so that joining them copies nothing.
    output = v.new_empty(batch, queries, heads, v.shape[3]).transpose(1, 2)
    scores = q.new_empty((batch, heads, queries, k.shape[2]) if return_scores else (0,))
    return output, scores, q.new_empty((batch, heads, queries), dtype=torch.float32)


@torch.library.custom_op("tsattn::active_attention_triton_backward", mutates_args=())
def active_attention_triton_backward(
    g: Tensor,
    g_scores: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prev: Tensor | None,
    mask: Tensor | None,
    seed: Tensor | None,
    output: Tensor,
    lse: Tensor,
    activation: str,
    is_causal: bool,
    dropout_p: float,
    scale: float,
    wants_prev: bool,
    wants_mask: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v and, where wanted, of the previous scores and the mask.

    That of the mask is [B, N, Q, K] in float32, before the mask's broadcasting is undone.
    """
    d_q, d_k, d_v, d_prev, d_mask = _allocate_backward(q, k, v, prev, wants_prev, wants_mask)
    tiles = choose_tiles(q, k, v)
    arguments = _inputs(q, k, v, prev, mask, seed) | _strided(g=g, g_scores=g_scores)
    arguments |= _settings(q, v, tiles, activation, is_causal, dropout_p, scale) | {"lse": lse}
    arguments |= _strided(
        out=output,
        d_q=d_q,
        d_k=d_k,
        d_v=d_v,
        d_prev=d_prev if wants_prev else None,
        d_mask=d_mask if wants_mask else None,
    )
    _launch_backward(q, k, tiles, arguments)
    return d_q, d_k, d_v, d_prev, d_mask


def _launch_backward(q: Tensor, k: Tensor, tiles: Tiles, arguments: dict[str, Any]) -> None:
    kernels = _kernels()
    if tiles.is_short:
        kernels.launch(kernels.backward_short, _programs(q, 1, 1), arguments, tiles.warps)
        return
    arguments = arguments | {"delta": torch.empty_like(arguments["lse"])}
    programs = _programs(q, q.shape[2], tiles.queries)
    kernels.launch(kernels.backward_queries, programs, arguments, tiles.warps)
    programs = _programs(q, k.shape[2], tiles.keys)
    kernels.launch(kernels.backward_keys, programs, arguments, tiles.warps)


@active_attention_triton_backward.register_fake  # pyright: ignore[reportUnknownMemberType]
def _(
    g: Tensor,
    g_scores: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prev: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _allocate_backward(q, k, v, prev, *rest[-2:])


def _allocate_backward(
    q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None, wants_prev: bool, wants_mask: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    full = (*q.shape[:3], k.shape[2])
    d_prev = torch.empty_like(prev) if wants_prev and prev is not None else q.new_empty(0)
    d_mask = q.new_empty(full if wants_mask else (0,), dtype=torch.float32)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), d_prev, d_mask


def _strided(**tensors: Tensor | None) -> dict[str, Any]:
    kernels = _kernels()
    return {
        name: None if tensor is None else kernels.Strided(tensor, tensor.stride())
        for name, tensor in tensors.items()
    }


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None, mask: Tensor | None, seed: Tensor | None
) -> dict[str, Any]:
    if mask is not None:
        mask = mask.view(torch.uint8) if mask.dtype == torch.bool else mask
        mask = mask.expand(*q.shape[:3], k.shape[2])  # by strides, nothing is copied
    sizes = (q.shape[1], q.shape[2], k.shape[2])
    return _strided(q=q, k=k, v=v, prev=prev, mask=mask) | {"seed": seed, "sizes": sizes}


def _settings(
    q: Tensor,
    v: Tensor,
    tiles: Tiles,
    activation: str,
    is_causal: bool,
    dropout_p: float,
    scale: float,
) -> dict[str, Any]:
    is_exact = torch.get_float32_matmul_precision() == "highest"
    return {
        "scale": scale,
        "dropout_p": dropout_p,
        "WIDTHS": (q.shape[3], v.shape[3]),
        "BLOCKS": tiles[:4],
        "ACTIVATION": activation,
        "IS_CAUSAL": is_causal,
        "PRECISION": "ieee" if is_exact else "tf32",
    }


def _programs(q: Tensor, length: int, tile: int) -> int:
    return q.shape[0] * q.shape[1] * -(-length // tile)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, prev, mask, seed, activation, _, is_causal, dropout_p, scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, prev, mask, seed, output[0], output[2])
    ctx.settings = activation, is_causal, dropout_p, scale


def _differentiate(
    ctx: Any, g: Tensor | None, g_scores: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    q, k, v, prev, mask, seed, output, lse = ctx.saved_tensors
    above = output.new_zeros(()).expand_as(output) if g is None else g
    g_scores = None if g_scores is None or g_scores.numel() == 0 else g_scores
    wants_prev, wants_mask = ctx.needs_input_grad[3:5]
    d_q, d_k, d_v, d_prev, d_mask = active_attention_triton_backward(
        above, g_scores, q, k, v, prev, mask, seed, output, lse,
        *ctx.settings, wants_prev, wants_mask,
    )  # fmt: skip
    of_mask = d_mask.sum_to_size(mask.shape).to(mask.dtype) if wants_mask else None
    return d_q, d_k, d_v, d_prev if wants_prev else None, of_mask, *(None,) * 6


active_attention_triton.register_autograd(  # pyright: ignore[reportUnknownMemberType]
    _differentiate, setup_context=_keep
)
