"""What this machine can do at best: dense products and copies, measured with torch itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from tsattn.bench.timing import Spread, measure

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_COPIED_MIB = 256


class Product(NamedTuple):
    """A dense product [rows, inner] @ [inner, columns]."""

    rows: int
    inner: int
    columns: int

    @property
    def gflop(self) -> float:
        """Multiplications and additions, in 1e9."""
        return 2e-9 * self.rows * self.inner * self.columns

    def __str__(self) -> str:
        """Write it as ``28224x128 @ 128x256``."""
        return f"{self.rows}x{self.inner} @ {self.inner}x{self.columns}"


@dataclass(frozen=True)
class Rate:
    """How fast a product runs here.

    Attributes:
        product: the product.
        dtype: ``float32`` or ``bfloat16``.
        gflops: 1e9 floating-point operations per second, median and spread.
    """

    product: Product
    dtype: str
    gflops: Spread


def product_rates(
    products: Sequence[Product], dtypes: Sequence[str] = tuple(DTYPES), rounds: int = 10
) -> list[Rate]:
    """Measure every product in every dtype."""
    rates: list[Rate] = []
    for product in products:
        for dtype in dtypes:
            left = torch.randn(product.rows, product.inner, dtype=DTYPES[dtype])
            weight = torch.randn(product.columns, product.inner, dtype=DTYPES[dtype])
            run = {"product": lambda left=left, w=weight: torch.nn.functional.linear(left, w)}
            seconds = measure(run, rounds, warm_up=2)["product"]
            rates.append(Rate(product, dtype, Spread.of([product.gflop / s for s in seconds])))
    return rates


def ceiling(rates: Sequence[Rate], dtype: str) -> float:
    """Return the GFLOP/s of these products one after the other, in one dtype."""
    chosen = [rate for rate in rates if rate.dtype == dtype]
    work = sum(rate.product.gflop for rate in chosen)
    return work / sum(rate.product.gflop / rate.gflops.median for rate in chosen)


def copy_gigabytes_per_second(rounds: int = 10, mib: int = _COPIED_MIB) -> Spread:
    """Measure the copy of a tensor larger than the caches, reading and writing both counted."""
    source = torch.ones(mib * 2**20 // 4)
    target = torch.empty_like(source)
    seconds = measure({"copy": lambda: target.copy_(source)}, rounds, warm_up=2)["copy"]
    return Spread.of([2e-9 * source.nbytes / s for s in seconds])
