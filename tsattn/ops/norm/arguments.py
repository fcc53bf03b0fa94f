"""What every normalisation of a residual path checks first."""

from torch import Tensor


def require_rows(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor, p: float) -> None:
    """Check shapes and probability.

    Raises:
        ValueError: shapes that do not fit, or ``p`` outside [0, 1).
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p must be in [0, 1), got {p}")
    if residual.shape != x.shape or x.ndim < 2:
        raise ValueError(
            "residual and x must share one shape [..., features], got "
            f"{list(residual.shape)} and {list(x.shape)}"
        )
    features = x.shape[-1:]
    if weight.shape != features or bias.shape != features:
        raise ValueError(
            f"weight and bias must be {list(features)}, got {list(weight.shape)} and "
            f"{list(bias.shape)}"
        )
