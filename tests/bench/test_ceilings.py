"""What the machine can do, and how a share of it is counted."""

import pytest

from tsattn.bench.ceilings import Product, Rate, ceiling, copy_gigabytes_per_second, product_rates
from tsattn.bench.kernels import Case
from tsattn.bench.timing import Spread


def test_a_product_counts_multiplications_and_additions() -> None:
    assert Product(1000, 100, 10).gflop == pytest.approx(2e-3)
    assert str(Product(1, 2, 3)) == "1x2 @ 2x3"


def test_ceiling_is_the_rate_of_the_products_one_after_the_other() -> None:
    # 2 GFLOP at 2 GFLOP/s and 4 at 1: 6 GFLOP in 5 s
    rates = [
        Rate(Product(1000, 1000, 1000), "float32", Spread(2.0, 1.0, 3.0)),
        Rate(Product(1000, 1000, 2000), "float32", Spread(1.0, 1.0, 1.0)),
        Rate(Product(1000, 1000, 2000), "bfloat16", Spread(9.0, 9.0, 9.0)),
    ]
    assert ceiling(rates, "float32") == pytest.approx(6 / 5)
    assert ceiling(rates, "bfloat16") == pytest.approx(9.0)


def test_rates_come_for_every_product_and_dtype() -> None:
    rates = product_rates([Product(8, 8, 8), Product(8, 4, 2)], rounds=2)
    assert [(str(r.product), r.dtype) for r in rates] == [
        ("8x8 @ 8x8", "float32"),
        ("8x8 @ 8x8", "bfloat16"),
        ("8x4 @ 4x2", "float32"),
        ("8x4 @ 4x2", "bfloat16"),
    ]
    assert all(0 < r.gflops.lowest <= r.gflops.median <= r.gflops.highest for r in rates)


def test_a_copy_has_a_rate() -> None:
    assert copy_gigabytes_per_second(rounds=1, mib=1).median > 0


def test_necessary_traffic_of_attention_counts_scores_only_where_they_are_kept() -> None:
    rows = 2 * 3 * 5
    without, with_scores = Case("a", 2, 3, 5, 7), Case("a", 2, 3, 5, 7, residual=True)
    assert without.gigabytes("float32") == pytest.approx(4e-9 * rows * 4 * 7)
    assert with_scores.gigabytes("bfloat16") == pytest.approx(2e-9 * rows * (4 * 7 + 2 * 5))
    assert without.gflop == pytest.approx(4e-9 * rows * 5 * 7)
