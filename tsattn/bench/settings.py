"""What ``tsattn bench auto`` compares: a grid of lengths and widths, and corners beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tsattn.bench.ceilings import DTYPES
from tsattn.bench.gate import Check, attention_checks
from tsattn.bench.kernels import CASES
from tsattn.errors import ConfigError
from tsattn.ops import VALUE_ACTIVATIONS

LENGTHS = (16, 42, 96, 128, 192, 336, 512)
WIDTHS = (4, 8, 16, 32, 64)
LIMIT, RESIDUAL_LIMIT = 0.95, 2.0
_EVERYWHERE = ("tanh", "identity")
_HEADS = 8
_WORK = 1e8  # queries x keys x (width + 16) of all heads: some milliseconds
Layout = Literal["contiguous", "heads last"]


@dataclass(frozen=True)
class Setting:
    """What is compared once.

    Attributes:
        length: queries, and keys.
        width: width of a head.
        batch: sequences.
        heads: heads.
        activation: the value activation.
        dtype: ``float32`` or ``bfloat16``.
        is_causal: whether a query looks at no later key.
        dropout_p: dropout of the weights, on both sides.
        residual: whether previous scores come in and new ones go out; torch's attention takes them
            as an additive mask and returns none.
        layout: order in memory; ``heads last`` is what projections give.
        group: ``grid``, or the name of the rows that it stands in.
    """

    length: int
    width: int
    batch: int
    heads: int
    activation: str = "tanh"
    dtype: str = "float32"
    is_causal: bool = False
    dropout_p: float = 0.0
    residual: bool = False
    layout: Layout = "contiguous"
    group: str = "grid"

    @property
    def limit(self) -> float:
        """The ratio from which on it is fast enough."""
        return RESIDUAL_LIMIT if self.residual else LIMIT


def batch_of(length: int, width: int) -> int:
    """Return how many sequences of eight heads keep this machine busy for some milliseconds."""
    return max(1, round(_WORK / (_HEADS * length**2 * (width + 16))))


def grid(
    dtypes: Sequence[str] = tuple(DTYPES),
    lengths: Sequence[int] = LENGTHS,
    widths: Sequence[int] = WIDTHS,
) -> list[Setting]:
    """Return every length with every width, causal and not, with an activation and without."""
    return [
        Setting(length, width, batch_of(length, width), _HEADS, activation, dtype, is_causal)
        for dtype in dtypes
        for activation in _EVERYWHERE
        for is_causal in (False, True)
        for length in lengths
        for width in widths
    ]


def corners(dtypes: Sequence[str] = tuple(DTYPES)) -> list[Setting]:
    """Return what the grid leaves out, at a few shapes each."""

    def at(length: int, width: int, dtype: str, **more: Any) -> Setting:
        batch = more.pop("batch", batch_of(length, width))
        return Setting(length, width, batch, more.pop("heads", _HEADS), dtype=dtype, **more)

    found: list[Setting] = []
    for dtype in dtypes:
        others = [name for name in VALUE_ACTIVATIONS if name not in _EVERYWHERE]
        found += [
            at(*shape, dtype, activation=name, group="activation")
            for shape in ((16, 4), (42, 8), (42, 64), (512, 4), (512, 64))
            for name in others
        ]
        found += [at(*s, dtype, dropout_p=0.2, group="dropout .2") for s in ((42, 4), (336, 64))]
        found += [
            at(*shape, dtype, layout="heads last", group="heads last")
            for shape in ((42, 4), (42, 16), (96, 64), (336, 64))
        ]
        found += [
            at(*shape, dtype, batch=batch, heads=heads, group="one window")
            for shape, batch, heads in (((42, 4), 7, 4), ((42, 8), 21, 16), ((96, 64), 1, 8))
        ]
        found += [
            Setting(
                case.length, case.width, case.batch, case.heads, name, dtype,
                residual=True, group=f"residual {case.name}",
            )
            for case in CASES if case.residual
            for name in VALUE_ACTIVATIONS
        ]  # fmt: skip
    return found


def everything(dtypes: Sequence[str] = tuple(DTYPES)) -> list[Setting]:
    """Return grid and corners."""
    return grid(dtypes) + corners(dtypes)


def quick(dtypes: Sequence[str] = tuple(DTYPES)) -> list[Setting]:
    """Return the borders of the grid, and the corners with one activation."""
    some = [s for s in corners(dtypes) if s.activation in ("tanh", "gelu")]
    return grid(dtypes, (16, 42, 336), (4, 16, 64)) + some


def among(
    settings: Sequence[Setting], lengths: Sequence[int] | None, widths: Sequence[int] | None
) -> list[Setting]:
    """Keep the settings of these lengths and widths; None keeps all.

    Raises:
        ConfigError: no setting is left.
    """
    kept = [
        s
        for s in settings
        if (lengths is None or s.length in lengths) and (widths is None or s.width in widths)
    ]
    if not kept:
        raise ConfigError(
            f"nothing is compared at lengths {lengths} and widths {widths}; "
            f"expected lengths among {LENGTHS}, widths among {WIDTHS}"
        )
    return kept


def checks(settings: Sequence[Setting], implementations: Sequence[str]) -> Iterator[Check]:
    """Compare every length, width and dtype with float64, causal and not, on one head."""
    kinds = {(s.length, s.width, s.dtype, s.activation, s.is_causal) for s in settings}
    for length, width, dtype, activation, is_causal in sorted(kinds):
        yield from attention_checks(
            implementations,
            [dtype],
            (1, 1, length, width),
            activations=[activation],
            scores=[False],
            is_causal=is_causal,
        )
