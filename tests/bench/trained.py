"""Tiny trainings whose folders, rows and kept checkpoints many tests look at."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.test_rows import OK
from tests.training.tiny import fit
from tsattn.bench.grid.kept import keep, write_weights
from tsattn.bench.rows import Key, Row, append_row
from tsattn.training.folder import RunFolder

ACTIVATIONS, SEEDS = ("identity", "tanh"), (7, 8)


@dataclass(frozen=True)
class Trained:
    """Two activations over two seeds.

    Attributes:
        home: the folder of everything.
        results: folder of the rows and the checkpoints.
        scores: what `run` returned, by activation and seed.
    """

    home: Path
    results: Path
    scores: dict[tuple[str, int], dict[str, Any]]

    def run(self, activation: str, seed: int) -> Path:
        """Return a run folder."""
        return self.home / f"{activation}-{seed}"


def train(home: Path) -> Trained:
    """Train all of them for one epoch and keep rows and checkpoints as the grid does."""
    found = Trained(home, home / "results", {})
    for activation in ACTIVATIONS:
        for seed in SEEDS:
            folder = found.run(activation, seed)
            words = ("--seed_everything", seed, "--model.network.value_activation", activation)
            result = fit(folder, *words, "--trainer.max_epochs", 1)
            found.scores[activation, seed] = result
            _keep(found.results, folder, activation, seed, result)
    return found


def _keep(results: Path, folder: Path, activation: str, seed: int, result: dict[str, Any]) -> None:
    key = Key("table2", "patchtst", "illness", activation, seed, OK["config_hash"])
    weights = folder / "best.safetensors"
    digest = write_weights(weights, RunFolder(folder), key)
    test, published = result["test"], result["as_published"]
    row = Row(
        **OK
        | key._asdict()
        | {
            "test_mse": test["mse"],
            "test_mae": test["mae"],
            "test_windows": test["windows_scored"],
            "test_mse_as_published": published["mse"],
            "test_mae_as_published": published["mae"],
            "windows_as_published": published["windows_scored"],
            "checkpoint": keep(weights, results, key),
            "checkpoint_sha256": digest,
        }
    )
    append_row(results / "patchtst.csv", row)


def changed(results: Path, copy: Path, **changes: Any) -> Path:
    """Copy results with the first row changed, and return the copy."""
    from tsattn.bench.rows import read_rows

    rows = read_rows(results / "patchtst.csv")
    for place, row in enumerate(rows):
        given = asdict(row) | (changes if place == 0 else {})  # pyright: ignore[reportArgumentType]
        append_row(copy / "patchtst.csv", Row(**given))
    (copy / "checkpoints").symlink_to(results / "checkpoints")
    return copy
