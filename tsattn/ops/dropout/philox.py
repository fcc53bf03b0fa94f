"""The counter-based random generator in plain torch: which elements a seed keeps.

Philox4x32 with seven rounds. Nothing is stored: any part of a mask can be computed at any time from
the seed. One group is 256 decisions, made by the counters ``16 g .. 16 g + 15``: decision
``16 p + lane`` is byte ``p // 4`` of output word ``p % 4`` at that lane's counter, and keeps its
element where this number is at least the group's threshold. ``threshold(p)`` has 16 bits; its lower
half is the share of the groups, chosen by a hash, in which the upper half counts one more. So the
rate is exact to 1 / 65536, and what is kept is scaled by the inverse of the rate really used.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011; Steele,
Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
`tsattn/ops/cpu/philox.h` draws the same numbers.
"""

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_ROUNDS = 7
GROUP, LANES, PARTS = 256, 16, 16


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
        Boolean ``[*groups.shape, 16, 16]``: parts and lanes.
    """
    counters = groups.unsqueeze(-1) * LANES + torch.arange(LANES, device=groups.device)
    words = torch.stack(_philox(seed, counters), dim=-2)  # [..., 4, 16]
    numbers = torch.cat([words >> shift & 0xFF for shift in (0, 8, 16, 24)], dim=-2)
    return numbers >= _group_threshold(seed, groups, p)[..., None, None]


def keep_flat(seed: Tensor, numel: int, p: float) -> Tensor:
    """Return the decisions for ``numel`` elements in a row."""
    groups = torch.arange(-(-numel // GROUP), device=seed.device)
    return keep_groups(seed, groups, p).flatten()[:numel]


def keep_weights(seed: Tensor, shape: tuple[int, int, int, int], p: float) -> Tensor:
    """Return the decisions for attention weights [B, N, Q, K].

    A group is 16 queries by 16 keys, numbered [batch, head, query // 16, key // 16].
    """
    batch, heads, queries, keys = shape
    rows, columns = -(-queries // LANES), -(-keys // PARTS)
    groups = torch.arange(batch * heads * rows * columns, device=seed.device)
    keep = keep_groups(seed, groups.view(batch, heads, rows, columns), p)
    keep = keep.permute(0, 1, 2, 5, 3, 4).reshape(batch, heads, rows * LANES, columns * PARTS)
    return keep[:, :, :queries, :keys]


def _group_threshold(seed: Tensor, groups: Tensor, p: float) -> Tensor:
    """Return the threshold of each group's bytes, 0..256 (splitmix64 decides about the rest)."""
    z = seed + (groups + 1) * _signed(0x9E3779B97F4A7C15)  # modulo 2^64
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return (threshold(p) >> 8) + (_shifted(z, 56) < (threshold(p) & 255)).to(torch.int64)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _shifted(x: Tensor, bits: int) -> Tensor:
    return x >> bits & (1 << (64 - bits)) - 1


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
