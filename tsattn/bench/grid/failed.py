"""The row of a cell that came to nothing."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tsattn import __version__
from tsattn.bench.grid.cells import Cell
from tsattn.bench.rows import SCHEMA, Row
from tsattn.training.recipes import recipes_of, with_recipes

_LONGEST_ERROR = 500
_TEXTS = (
    "checkpoint_rule", "data_sha256", "train_rows", "val_rows", "test_rows", "scaler", "device",
    "precision", "attention", "lightning", "python", "commit", "checkpoint", "checkpoint_sha256",
)  # fmt: skip
_OPTIONAL = (
    "test_mse", "test_mae", "test_mse_as_published", "test_mae_as_published", "test_windows",
    "test_windows_dropped", "windows_as_published", "val_mse", "best_epoch", "epochs", "context",
    "horizon", "parameters", "wall_seconds", "peak_mib", "devices", "threads",
)  # fmt: skip


def failed_row(cell: Cell, error: str) -> Row:
    """Return the row of a cell that came to nothing."""
    empty: dict[str, Any] = {**dict.fromkeys(_OPTIONAL), **dict.fromkeys(_TEXTS, "")}
    known = {
        "schema": SCHEMA,
        "status": "failed",
        "error": " ".join(error.split())[:_LONGEST_ERROR] or "no reason was given",
        "recipe": ", ".join(recipes_of(with_recipes(cell.words[:3]))),
        "max_epochs": cell.max_epochs,
        "tsattn": __version__,
        "torch": version("torch"),
        "finished": now(),
    }
    return Row(**(empty | known | cell.key._asdict()))


def now() -> str:
    """Return the moment as rows have it, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
