"""Data: the catalog, reading and checking files, splits, scaling, calendar features and windows."""

from tsattn.data.calendar import HOURLY_FOUR, calendar_marks, default_season, future_times
from tsattn.data.catalog import CATALOG, DatasetInfo, find
from tsattn.data.load import cache_dir, load_panel
from tsattn.data.panel import Panel, Series
from tsattn.data.prepare import Prepared, prepare
from tsattn.data.reading import Reading
from tsattn.data.scaling import Scaler
from tsattn.data.splits import Borders, count_windows, split_borders
from tsattn.data.windows import WindowBatch, Windows, WindowSampler, loader

__all__ = [
    "CATALOG",
    "HOURLY_FOUR",
    "Borders",
    "DatasetInfo",
    "Panel",
    "Prepared",
    "Reading",
    "Scaler",
    "Series",
    "WindowBatch",
    "WindowSampler",
    "Windows",
    "cache_dir",
    "calendar_marks",
    "count_windows",
    "default_season",
    "find",
    "future_times",
    "load_panel",
    "loader",
    "prepare",
    "split_borders",
]
