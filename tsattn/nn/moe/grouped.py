"""Grouped products: every expert's matrix applied to the rows that are its own, in one call."""

import torch
from torch import Tensor
from torch.nn import functional as F


def grouped_linear(
    x_SD: Tensor, weight_EFD: Tensor, bias_EF: Tensor, ends_E: Tensor, membership_SE: Tensor
) -> Tensor:
    """Return ``W_e x + b_e`` for rows sorted by expert, as one grouped product.

    The biases are spread by a product with the membership, whose backward pass adds in a fixed
    order.
    """
    dtype = _product_dtype(x_SD)
    product = F.grouped_mm(x_SD.to(dtype), weight_EFD.to(dtype).mT, offs=ends_E.to(torch.int32))
    return product + membership_SE.to(product.dtype) @ bias_EF.to(product.dtype)


def membership(ends_E: Tensor, rows: int) -> Tensor:
    """Say which row belongs to which expert, [S, E]."""
    row_S1 = torch.arange(rows, device=ends_E.device)[:, None]
    starts_E = torch.cat([ends_E.new_zeros(1), ends_E[:-1]])
    return (row_S1 >= starts_E) & (row_S1 < ends_E)


def obstacle_to_groups(x: Tensor, *widths: int) -> str:
    """Say why grouped products of rows this wide cannot take these tokens, or nothing."""
    dtype = _product_dtype(x)
    if dtype not in (torch.float32, torch.bfloat16):
        return f"grouped products take float32 and bfloat16, not {dtype}"
    if any(width * dtype.itemsize % 16 for width in widths):
        return f"grouped products need rows of a multiple of 16 bytes, got widths {list(widths)}"
    return ""


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that products of ``x`` are computed in: that of autocast where it is on."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype
