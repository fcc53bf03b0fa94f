"""The counter-based random generator in plain torch: which elements a seed keeps.

Philox4x32 with seven rounds. Nothing is stored: any part of a mask can be computed at any time from
the seed. One group is 128 decisions, made by the counters ``16 g .. 16 g + 15``: decision
``16 p + lane`` is the low (``p < 4``) or high half of output word ``p % 4`` at that lane's counter,
and keeps its element where this 16-bit number is at least ``threshold(p)``. So the rate is exact to
1 / 65536, and what is kept is scaled by the inverse of the rate really used.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
`tsattn/ops/cpu/philox.h` draws the same numbers.
"""

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_ROUNDS = 7
GROUP, LANES, PARTS = 128, 16, 8


def draw_seed() -> Tensor:
    """Draw one 63-bit seed from torch's CPU generator, so that `torch.manual_seed` governs it."""
    return torch.randint(0, 2**63 - 1, (), dtype=torch.int64)


def threshold(p: float) -> int:
    """Return how many of 65536 numbers drop an element: ``round(65536 p)``, at most 65535."""
    return min(65535, int(p * 65536 + 0.5))


def keep_scale(p: float) -> float:
    """Return the factor of what is kept, the inverse of the rate at which it is kept."""
    return 65536 / (65536 - threshold(p))


def keep_groups(seed: Tensor, groups: Tensor, p: float) -> Tensor:
    """Return the decisions of some groups.

    Args:
        seed: one int64 number.
        groups: numbers of the groups, any shape, int64.
        p: probability of dropping, in [0, 1).

    Returns:
        Boolean ``[*groups.shape, 8, 16]``: parts and lanes.
    """
    counters = groups.unsqueeze(-1) * LANES + torch.arange(LANES, device=groups.device)
    words = torch.stack(_philox(seed, counters), dim=-2)  # [..., 4, 16]
    halves = torch.cat((words & 0xFFFF, words >> 16), dim=-2)
    return halves >= threshold(p)


def keep_flat(seed: Tensor, numel: int, p: float) -> Tensor:
    """Return the decisions for ``numel`` elements in a row."""
    groups = torch.arange(-(-numel // GROUP), device=seed.device)
    return keep_groups(seed, groups, p).flatten()[:numel]


def keep_weights(seed: Tensor, shape: tuple[int, int, int, int], p: float) -> Tensor:
    """Return the decisions for attention weights [B, N, Q, K].

    A group is 16 queries by 8 keys; groups are numbered [batch, head, query // 16, key // 8].
    """
    batch, heads, queries, keys = shape
    rows, columns = -(-queries // LANES), -(-keys // PARTS)
    groups = torch.arange(batch * heads * rows * columns, device=seed.device)
    keep = keep_groups(seed, groups.view(batch, heads, rows, columns), p)
    keep = keep.permute(0, 1, 2, 5, 3, 4).reshape(batch, heads, rows * LANES, columns * PARTS)
    return keep[:, :, :queries, :keys]


def _philox(seed: Tensor, counters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    keys = [seed & _WORD, (seed >> 32) & _WORD]
    x = [counters & _WORD, (counters >> 32) & _WORD]
    x += [torch.zeros_like(counters), torch.zeros_like(counters)]
    for _ in range(_ROUNDS):
        first = x[0] * _MULTIPLIERS[0]  # modulo 2^64
        second = x[2] * _MULTIPLIERS[1]
        x = [
            ((second >> 32) & _WORD) ^ x[1] ^ keys[0],
            second & _WORD,
            ((first >> 32) & _WORD) ^ x[3] ^ keys[1],
            first & _WORD,
        ]
        keys = [(key + step) & _WORD for key, step in zip(keys, _KEY_STEPS, strict=True)]
    return x[0], x[1], x[2], x[3]
