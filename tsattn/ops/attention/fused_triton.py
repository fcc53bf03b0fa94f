# pyright: basic
"""Active attention as Triton kernels; `tsattn.ops.attention.triton_op` loads them on first use.

The only file that imports triton. One program computes one tile of queries of one head, in float32;
every kernel draws the same dropout mask from the seed and an element's place, so that none is kept.
Scores, weights and their gradients live in registers: where a sequence fits one tile the backward
pass is one kernel, otherwise one goes along the keys (gradients of the queries), one along the
queries (gradients of the keys and values).

Source: equation 20 of the active-attention paper; the online softmax and the saved log-sum-exp are
FlashAttention-2's (Dao, 2023); the dropout is Philox4x32-7 (Salmon et al., 2011).
"""

from typing import Any, NamedTuple, no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from triton import knobs  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

_IS_INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))


class Strided(NamedTuple):
    """A tensor [B, N, rows, columns], wherever its elements lie."""

    data: Any
    strides: Any


def launch(kernel: Any, programs: int, arguments: dict[str, Any], warps: int) -> None:
    """Run ``programs`` copies of a kernel, of 32 ``warps`` threads each, where its queries lie.

    Arguments that this kernel does not know are left out.
    """
    arguments = {name: arguments[name] for name in kernel.arg_names}
    with torch.cuda.device_of(arguments["q"].data):
        kernel[(programs,)](**arguments, **options(warps))


def options(warps: int) -> dict[str, Any]:
    """Return the options of the compiler.

    Fused multiply-add is asked for by name: Triton's default for it changes in 3.10.
    """
    return {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True}


@triton.jit
@no_type_check
def _activate(x, NAME: tl.constexpr):
    """Apply the activation in float32; the identity leaves the dtype alone."""
    if NAME != "identity":
        x = x.to(tl.float32)
    if NAME == "relu":
        x = tl.where(x < 0, 0.0, x)
    elif NAME == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif NAME == "silu":
        x = x * tl.sigmoid(x)
    elif NAME == "tanh":
        x = _tanh(x)
    elif NAME == "sigmoid":
        x = tl.sigmoid(x)
    else:
        tl.static_assert(NAME == "identity")
    return x


@triton.jit
@no_type_check
def _slope(x, NAME: tl.constexpr):
    """Return the derivative of the activation at ``x``, in float32."""
    x = x.to(tl.float32)
    if NAME == "relu":
        x = tl.where(x > 0, 1.0, 0.0)
    elif NAME == "gelu":
        normal = tl.exp(-0.5 * x * x) * 0.3989422804014327
        x = 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * normal
    elif NAME == "silu":
        y = tl.sigmoid(x)
        x = y * (1 + x * (1 - y))
    elif NAME == "tanh":
        y = _tanh(x)
        x = 1 - y * y
    elif NAME == "sigmoid":
        y = tl.sigmoid(x)
        x = y * (1 - y)
    else:
        tl.static_assert(NAME == "identity")
        x = x * 0 + 1
    return x


@triton.jit
@no_type_check
def _tanh(x):
    """Hyperbolic tangent: an odd polynomial near zero (Cephes' tanhf), exponentials elsewhere."""
    z = x * x
    near = -5.70498872745e-3 * z + 2.06390887954e-2
    near = near * z - 5.37397155531e-2
    near = near * z + 1.33314422036e-1
    near = near * z - 3.33332819422e-1
    far = 1 - 2 / (tl.exp(2 * tl.abs(x)) + 1)
    return tl.where(tl.abs(x) < 0.625, x + x * z * near, tl.where(x < 0, -far, far))


@triton.jit
@no_type_check
def _dot(a, b, sums, PRECISION: tl.constexpr):
    """Return ``sums + a b``, summed in float32 whatever the dtype of the factors."""
    if _IS_INTERPRETED:  # whose product takes bfloat16 for integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision=PRECISION)


@triton.jit
@no_type_check
def _narrow(x, DTYPE: tl.constexpr):
    """Round to nearest, ties to even."""
    if _IS_INTERPRETED and DTYPE.is_bf16():  # which would cut the last bits off
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(DTYPE)


@triton.jit
@no_type_check
def _at(tensor, head, num_heads, rows, cols):
    """Return the addresses of a tile."""
    s = tensor.strides
    batch, place = (head // num_heads).to(tl.int64), (head % num_heads).to(tl.int64)
    start = tensor.data + batch * s[0] + place * s[1]
    return (start + rows.to(tl.int64) * s[2])[:, None] + (cols.to(tl.int64) * s[3])[None, :]


@triton.jit
@no_type_check
def _inside(rows, cols, num_rows, num_cols):
    return (rows < num_rows)[:, None] & (cols < num_cols)[None, :]


@triton.jit
@no_type_check
def _load(tensor, head, num_heads, rows, cols, num_rows, num_cols):
    inside = _inside(rows, cols, num_rows, num_cols)
    return tl.load(_at(tensor, head, num_heads, rows, cols), mask=inside, other=0.0)


@triton.jit
@no_type_check
def _store(tensor, tile, head, num_heads, rows, cols, num_rows, num_cols):
    inside = _inside(rows, cols, num_rows, num_cols)
    place = _at(tensor, head, num_heads, rows, cols)
    tl.store(place, _narrow(tile, tensor.data.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _scores(q, k, prev, head, sizes, rows, cols, scale, PRECISION: tl.constexpr):
    """Return the tile of raw scores: ``scale * Q K' + prev``."""
    scores = _dot(q, tl.trans(k), None, PRECISION) * scale
    if prev is not None:
        scores += _load(prev, head, sizes[0], rows, cols, sizes[1], sizes[2]).to(tl.float32)
    return scores


@triton.jit
@no_type_check
def _hide(scores, mask, head, sizes, rows, cols, IS_CAUSAL: tl.constexpr):
    """Set what a query may not look at to minus infinity."""
    visible = _inside(rows, cols, sizes[1], sizes[2])
    if IS_CAUSAL:
        visible &= rows[:, None] >= cols[None, :]
    if mask is not None:
        tile = _load(mask, head, sizes[0], rows, cols, sizes[1], sizes[2])
        if mask.data.dtype.element_ty.is_int():
            visible &= tile != 0
        else:
            scores += tile.to(tl.float32)
    return tl.where(visible, scores, float("-inf"))


@triton.jit
@no_type_check
def _keep(seed, head, rows, first, dropout_p, WIDTH: tl.constexpr):
    """Draw which weights stay: four neighbours of a row share one Philox block."""
    quads = first // 4 + tl.arange(0, WIDTH // 4)
    a, b, c, d = tl.philox(tl.load(seed), quads[None, :], rows[:, None], head, 0, 7)
    words = tl.join(tl.join(a, c), tl.join(b, d)).reshape(rows.shape[0], WIDTH)
    return (words >> 8).to(tl.int32).to(tl.float32) * (1.0 / (1 << 24)) >= dropout_p


@triton.jit
@no_type_check
def forward(
    q, k, v, prev, mask, seed, out, scores, lse, sizes, scale, dropout_p,
    WIDTHS: tl.constexpr, BLOCKS: tl.constexpr,
    ACTIVATION: tl.constexpr, IS_CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute one tile of queries; ``sizes`` are heads, queries, keys."""
    heads, num_queries, num_keys = sizes
    tiles = tl.cdiv(num_queries, BLOCKS[0])
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCKS[0]
    rows = start + tl.arange(0, BLOCKS[0])
    w, u = tl.arange(0, BLOCKS[2]), tl.arange(0, BLOCKS[3])
    q_tile = _load(q, head, heads, rows, w, num_queries, WIDTHS[0])
    highest = tl.full([BLOCKS[0]], float("-inf"), tl.float32)
    total = tl.zeros([BLOCKS[0]], tl.float32)
    sums = tl.zeros([BLOCKS[0], BLOCKS[3]], tl.float32)
    end = num_keys
    if IS_CAUSAL and scores is None:
        end = tl.minimum(num_keys, start + BLOCKS[0])
    for first in tl.range(0, end, BLOCKS[1], disable_licm=True):
        cols = first + tl.arange(0, BLOCKS[1])
        k_tile = _load(k, head, heads, cols, w, num_keys, WIDTHS[0])
        tile = _scores(q_tile, k_tile, prev, head, sizes, rows, cols, scale, PRECISION)
        if scores is not None:
            _store(scores, tile, head, heads, rows, cols, num_queries, num_keys)
        tile = _hide(tile, mask, head, sizes, rows, cols, IS_CAUSAL)
        higher = tl.maximum(highest, tl.max(tile, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(tile - shift[:, None])
        fade = tl.exp(highest - shift)
        total = total * fade + tl.sum(weights, 1)
        if seed is not None:
            weights = tl.where(_keep(seed, head, rows, first, dropout_p, BLOCKS[1]), weights, 0.0)
        v_tile = _load(v, head, heads, cols, u, num_keys, WIDTHS[1])
        values = _narrow(_activate(v_tile, ACTIVATION), v_tile.dtype)
        sums = sums * fade[:, None]
        sums = _dot(_narrow(weights, v_tile.dtype), values, sums, PRECISION)  # eq. 20
        highest = higher
    nothing = total == 0
    sums = sums / (tl.where(nothing, 1.0, total) * (1 - dropout_p))[:, None]
    _store(out, sums, head, heads, rows, u, num_queries, WIDTHS[1])
    level = tl.where(nothing, float("inf"), highest + tl.log(tl.where(nothing, 1.0, total)))
    tl.store(lse + head.to(tl.int64) * num_queries + rows, level, mask=rows < num_queries)


@triton.jit
@no_type_check
def _weigh(
    q, k, values, g, level, prev, mask, seed, head, sizes, rows, first, scale, dropout_p,
    WIDTH: tl.constexpr, IS_CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return a tile of weights, the same after dropout, and the gradient of the first."""
    cols = first + tl.arange(0, WIDTH)
    tile = _scores(q, k, prev, head, sizes, rows, cols, scale, PRECISION)
    tile = _hide(tile, mask, head, sizes, rows, cols, IS_CAUSAL)
    weights = tl.exp(tile - level[:, None])
    slopes = _dot(g, tl.trans(values), None, PRECISION)
    dropped = weights
    if seed is not None:
        keep = _keep(seed, head, rows, first, dropout_p, WIDTH)
        dropped = tl.where(keep, weights / (1 - dropout_p), 0.0)
        slopes = tl.where(keep, slopes / (1 - dropout_p), 0.0)
    return weights, dropped, slopes


@triton.jit
@no_type_check
def _collect(tile, g_scores, d_prev, d_mask, head, sizes, rows, cols):
    """Store a tile of gradients where it is wanted; add what came through the returned scores."""
    if d_mask is not None:
        _store(d_mask, tile, head, sizes[0], rows, cols, sizes[1], sizes[2])
    if g_scores is not None:
        tile += _load(g_scores, head, sizes[0], rows, cols, sizes[1], sizes[2]).to(tl.float32)
    if d_prev is not None:
        _store(d_prev, tile, head, sizes[0], rows, cols, sizes[1], sizes[2])
    return tile


@triton.jit
@no_type_check
def backward_short(
    q, k, v, prev, mask, seed, lse, out, g, g_scores, d_q, d_k, d_v, d_prev, d_mask,
    sizes, scale, dropout_p,
    WIDTHS: tl.constexpr, BLOCKS: tl.constexpr,
    ACTIVATION: tl.constexpr, IS_CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute every gradient of one head whose queries fit one tile."""
    heads, num_queries, num_keys = sizes
    head = tl.program_id(0)
    rows = tl.arange(0, BLOCKS[0])
    w, u = tl.arange(0, BLOCKS[2]), tl.arange(0, BLOCKS[3])
    q_tile = _load(q, head, heads, rows, w, num_queries, WIDTHS[0])
    g_tile = _load(g, head, heads, rows, u, num_queries, WIDTHS[1])
    o_tile = _load(out, head, heads, rows, u, num_queries, WIDTHS[1])
    shift = tl.sum(g_tile.to(tl.float32) * o_tile.to(tl.float32), 1)
    place = lse + head.to(tl.int64) * num_queries + rows
    level = tl.load(place, mask=rows < num_queries, other=float("inf"))
    q_sums = tl.zeros([BLOCKS[0], BLOCKS[2]], tl.float32)
    for first in tl.range(0, num_keys, BLOCKS[1], disable_licm=True):
        cols = first + tl.arange(0, BLOCKS[1])
        k_tile = _load(k, head, heads, cols, w, num_keys, WIDTHS[0])
        v_tile = _load(v, head, heads, cols, u, num_keys, WIDTHS[1])
        values = _narrow(_activate(v_tile, ACTIVATION), v_tile.dtype)
        weights, dropped, slopes = _weigh(
            q_tile, k_tile, values, g_tile, level, prev, mask, seed, head, sizes, rows, first,
            scale, dropout_p, BLOCKS[1], IS_CAUSAL, PRECISION,
        )  # fmt: skip
        sums = _dot(tl.trans(_narrow(dropped, v_tile.dtype)), g_tile, None, PRECISION)
        sums *= _slope(v_tile, ACTIVATION)
        _store(d_v, sums, head, heads, cols, u, num_keys, WIDTHS[1])
        tile = weights * (slopes - shift[:, None])
        tile = _collect(tile, g_scores, d_prev, d_mask, head, sizes, rows, cols)
        tile = _narrow(tile, q_tile.dtype)
        q_sums = _dot(tile, k_tile, q_sums, PRECISION)
        sums = _dot(tl.trans(tile), q_tile, None, PRECISION) * scale
        _store(d_k, sums, head, heads, cols, w, num_keys, WIDTHS[0])
    _store(d_q, q_sums * scale, head, heads, rows, w, num_queries, WIDTHS[0])


@triton.jit
@no_type_check
def backward_queries(
    q, k, v, prev, mask, seed, lse, out, g, g_scores, delta, d_q, d_prev, d_mask,
    sizes, scale, dropout_p,
    WIDTHS: tl.constexpr, BLOCKS: tl.constexpr,
    ACTIVATION: tl.constexpr, IS_CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one tile of queries; leave ``sum(g * out)`` in ``delta``."""
    heads, num_queries, num_keys = sizes
    tiles = tl.cdiv(num_queries, BLOCKS[0])
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCKS[0]
    rows = start + tl.arange(0, BLOCKS[0])
    w, u = tl.arange(0, BLOCKS[2]), tl.arange(0, BLOCKS[3])
    q_tile = _load(q, head, heads, rows, w, num_queries, WIDTHS[0])
    g_tile = _load(g, head, heads, rows, u, num_queries, WIDTHS[1])
    o_tile = _load(out, head, heads, rows, u, num_queries, WIDTHS[1])
    offsets = head.to(tl.int64) * num_queries + rows
    level = tl.load(lse + offsets, mask=rows < num_queries, other=float("inf"))
    shift = tl.sum(g_tile.to(tl.float32) * o_tile.to(tl.float32), 1)
    tl.store(delta + offsets, shift, mask=rows < num_queries)
    sums = tl.zeros([BLOCKS[0], BLOCKS[2]], tl.float32)
    end = num_keys
    if IS_CAUSAL and g_scores is None and d_prev is None and d_mask is None:
        end = tl.minimum(num_keys, start + BLOCKS[0])
    for first in tl.range(0, end, BLOCKS[1], disable_licm=True):
        cols = first + tl.arange(0, BLOCKS[1])
        k_tile = _load(k, head, heads, cols, w, num_keys, WIDTHS[0])
        v_tile = _load(v, head, heads, cols, u, num_keys, WIDTHS[1])
        values = _narrow(_activate(v_tile, ACTIVATION), v_tile.dtype)
        weights, _, slopes = _weigh(
            q_tile, k_tile, values, g_tile, level, prev, mask, seed, head, sizes, rows, first,
            scale, dropout_p, BLOCKS[1], IS_CAUSAL, PRECISION,
        )  # fmt: skip
        tile = weights * (slopes - shift[:, None])
        tile = _collect(tile, g_scores, d_prev, d_mask, head, sizes, rows, cols)
        sums = _dot(_narrow(tile, k_tile.dtype), k_tile, sums, PRECISION)
    _store(d_q, sums * scale, head, heads, rows, w, num_queries, WIDTHS[0])


@triton.jit
@no_type_check
def backward_keys(
    q, k, v, prev, mask, seed, lse, delta, g, g_scores, d_k, d_v,
    sizes, scale, dropout_p,
    WIDTHS: tl.constexpr, BLOCKS: tl.constexpr,
    ACTIVATION: tl.constexpr, IS_CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one tile of keys and values, after `backward_queries`."""
    heads, num_queries, num_keys = sizes
    tiles = tl.cdiv(num_keys, BLOCKS[1])
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCKS[1]
    cols = start + tl.arange(0, BLOCKS[1])
    w, u = tl.arange(0, BLOCKS[2]), tl.arange(0, BLOCKS[3])
    k_tile = _load(k, head, heads, cols, w, num_keys, WIDTHS[0])
    v_tile = _load(v, head, heads, cols, u, num_keys, WIDTHS[1])
    values = _narrow(_activate(v_tile, ACTIVATION), v_tile.dtype)
    k_sums = tl.zeros([BLOCKS[1], BLOCKS[2]], tl.float32)
    v_sums = tl.zeros([BLOCKS[1], BLOCKS[3]], tl.float32)
    begin = 0
    if IS_CAUSAL and g_scores is None:
        begin = start // BLOCKS[0] * BLOCKS[0]
    for first in tl.range(begin, num_queries, BLOCKS[0], disable_licm=True):
        rows = first + tl.arange(0, BLOCKS[0])
        q_tile = _load(q, head, heads, rows, w, num_queries, WIDTHS[0])
        g_tile = _load(g, head, heads, rows, u, num_queries, WIDTHS[1])
        offsets = head.to(tl.int64) * num_queries + rows
        level = tl.load(lse + offsets, mask=rows < num_queries, other=float("inf"))
        shift = tl.load(delta + offsets, mask=rows < num_queries, other=0.0)
        weights, dropped, slopes = _weigh(
            q_tile, k_tile, values, g_tile, level, prev, mask, seed, head, sizes, rows, start,
            scale, dropout_p, BLOCKS[1], IS_CAUSAL, PRECISION,
        )  # fmt: skip
        dropped = tl.trans(_narrow(dropped, v_tile.dtype))
        v_sums = _dot(dropped, g_tile, v_sums, PRECISION)
        tile = weights * (slopes - shift[:, None])
        tile = _collect(tile, g_scores, None, None, head, sizes, rows, cols)
        tile = tl.trans(_narrow(tile, q_tile.dtype))
        k_sums = _dot(tile, q_tile, k_sums, PRECISION)
    _store(d_k, k_sums * scale, head, heads, cols, w, num_keys, WIDTHS[0])
    _store(d_v, v_sums * _slope(v_tile, ACTIVATION), head, heads, cols, u, num_keys, WIDTHS[1])
