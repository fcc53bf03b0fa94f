"""Long-horizon time-series forecasting with active attention."""

__version__ = "0.1.0"
