"""Frames of random walks."""

import numpy as np
import pandas as pd


def wide_frame(
    rows: int = 120, names: str = "abc", freq: str = "h", start: str = "2020-01-01", seed: int = 0
) -> pd.DataFrame:
    """Return a time column ``date`` and channels whose levels and spreads differ."""
    walks = np.random.default_rng(seed).normal(size=(rows, len(names))).cumsum(axis=0)
    walks = walks * 10.0 ** np.arange(len(names)) + 100 * np.arange(len(names))
    frame = pd.DataFrame(walks.round(3), columns=list(names))
    frame.insert(0, "date", pd.date_range(start, periods=rows, freq=freq))
    return frame


def long_frame(lengths: tuple[int, ...] = (120, 100, 90), seed: int = 0) -> pd.DataFrame:
    """Return daily series s0, s1, ... under each other, as ``unique_id, ds, y``."""
    parts = [
        pd.DataFrame(
            {
                "unique_id": f"s{place}",
                "ds": pd.date_range("2020-01-01", periods=length, freq="D"),
                "y": wide_frame(length, "a", seed=seed + place)["a"] * (1 + place) + 50 * place,
            }
        )
        for place, length in enumerate(lengths)
    ]
    return pd.concat(parts, ignore_index=True)


def melted(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a wide frame as a long one, a series per channel."""
    long = frame.melt(id_vars="date", var_name="unique_id", value_name="y")
    return long.rename(columns={"date": "ds"})[["unique_id", "ds", "y"]]
