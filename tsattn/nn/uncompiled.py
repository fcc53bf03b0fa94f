"""What torch.compile leaves alone; importing this imports the compiler."""

# Torch's autograd functions carry no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from tsattn.nn.recompute import Recomputed

_Apply = Callable[..., tuple[Tensor, Tensor | None]]

apply_branch = cast(_Apply, torch.compiler.disable(Recomputed.apply))
"""A branch that is computed again: the compiler must see both passes as one."""
