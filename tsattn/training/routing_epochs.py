"""How the mixtures of a network route, epoch by epoch, while it is trained."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.hooks import RemovableHandle

from tsattn.data.windows import WindowBatch
from tsattn.nn.auxiliary import Fed
from tsattn.nn.moe import MoEFeedForward
from tsattn.training.routing import mixtures
from tsattn.training.routing_table import Row, final_values, read_rows, write_rows
from tsattn.training.routing_tally import (
    Assigned,
    Trained,
    Validated,
    changes,
    total_trained,
    total_validated,
)
from tsattn.training.task import ForecastTask


class RoutingOfEpochs(Callback):
    """Measures after every epoch what each mixture did, see `MEASURES`; without mixtures, nothing.

    Load and entropies are those of all validation tokens, read in a forward hook as they pass, so
    that nothing is computed twice. The expert change rate is the share of assignments (a token and
    one of its experts) that the epoch before did not have, over all tokens of fixed validation
    windows: as many as hold `WATCHED_TOKENS` tokens, spread evenly. Dropped slots and the router's
    agreement with competitions are those of the training steps of the epoch.

    The numbers go to ``routing.csv``, of which a resumed run keeps the epochs before, and to the
    trainer's loggers as ``moe/<layer>/<measure>``. A checkpoint carries the last assignments.

    Args:
        path: the table to write; ``None`` writes none.

    Source: CompeteSMoE paper, section 5.2.2 (b) and appendix D.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.before: dict[str, Assigned] = {}
        self._layers: dict[str, MoEFeedForward] = {}
        self._hooks: list[RemovableHandle] = []
        self._trained: dict[str, Trained] = {}
        self._validated: dict[str, Validated] = {}
        self._windows: tuple[torch.Tensor, int] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the rows of the epochs before the one that training begins with; watch mixtures."""
        self.rows = [row for row in self._stored() if row.epoch <= trainer.current_epoch]
        if not isinstance(pl_module, ForecastTask):
            return
        self._layers = dict(mixtures(pl_module.network))
        for name, layer in self._layers.items():
            self._hooks.append(layer.register_forward_hook(self._watching(name)))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from nothing."""
        self._trained = {name: Trained() for name in self._layers}
        self._validated = {}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from nothing; of several validations in an epoch the last one counts."""
        self._validated = {
            name: Validated(torch.zeros(layer.num_experts, dtype=torch.int64))
            for name, layer in self._layers.items()
        }

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: WindowBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note which windows come now."""
        loaders: Any = trainer.val_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
        self._windows = batch.index_B, len(loader.dataset)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Forget them."""
        self._windows = None

    def _watching(self, name: str) -> Callable[[nn.Module, Any, Fed], None]:
        def watch(module: nn.Module, inputs: Any, output: Fed) -> None:
            if module.training:
                limited = self._layers[name].capacity is not None
                self._trained[name].add(output.routing, limited=limited)
            elif self._windows is not None:
                self._validated[name].add(output.routing, *self._windows)

        return watch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, write, and tell the loggers."""
        if not self._layers:
            return
        epoch, values = trainer.current_epoch + 1, dict[str, float]()
        for name in self._layers:
            for measure, expert, value in self._measured(trainer, name):
                self.rows.append(Row(epoch, name, measure, expert, round(value, 6)))
                suffix = "" if expert is None else f"_{expert}"
                values[f"moe/{name}/{measure}{suffix}"] = value
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        if self.path and trainer.is_global_zero:
            write_rows(self.path, self.rows)

    def _measured(self, trainer: L.Trainer, name: str) -> list[tuple[str, int | None, float]]:
        seen: list[Any] = [(self._trained[name], self._validated.get(name))]
        if trainer.world_size > 1:
            mine, seen = seen[0], [None] * trainer.world_size
            torch.distributed.all_gather_object(seen, mine)
        found = total_trained(trained for trained, _ in seen).measured()
        if self._validated:
            total = total_validated(validated for _, validated in seen)
            now = total.assigned()
            found += [*total.measured(), *changes(self.before.get(name), now)]
            if now is not None:
                self.before[name] = now
        return found

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop watching."""
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stop watching."""
        self._stop()

    def _stop(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._layers = [], {}

    def state_dict(self) -> dict[str, Any]:
        """Return the assignments that the next epoch is compared with."""
        return {name: assigned._asdict() for name, assigned in self.before.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take assignments over."""
        self.before = {name: Assigned(**assigned) for name, assigned in state_dict.items()}

    def final(self) -> dict[str, dict[str, float]]:
        """Return the last change rate of every layer, and the router's agreement where it competed.

        They are those of all epochs so far, those before a resume included.
        """
        rows = self.rows or self._stored()
        return final_values(rows, "change_rate", "router_agreement")

    def _stored(self) -> list[Row]:
        return read_rows(self.path) if self.path else []
