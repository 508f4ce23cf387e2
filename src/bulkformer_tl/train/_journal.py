"""What a run remembers: its history, its best weights, when to stop; all of it in the states that it writes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd
from lightning.pytorch import Callback

from bulkformer_tl._unfinished import replacing
from bulkformer_tl.train._checkpoints import save_state

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import Trainer

    from bulkformer_tl._progress import Progress
    from bulkformer_tl.train._batches import Plan
    from bulkformer_tl.train._config import PretrainConfig
    from bulkformer_tl.train._module import Pretraining

logger = logging.getLogger(__name__)


class Journal(Callback):
    """Keeps the history and the best weights, ends the run early, and writes a state after each round.

    Parameters
    ----------
    folder
        Of the run.
    config
        Of the run.
    plan
        How samples are divided.
    progress
        Bar over the samples.
    """

    def __init__(self, folder: Path, config: PretrainConfig, plan: Plan, progress: Progress) -> None:
        self._folder = folder
        self._config = config
        self._plan = plan
        self._progress = progress
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self._waited = 0
        self.stopped = False

    @property
    def history(self) -> pd.DataFrame:
        """One row per validation."""
        return pd.DataFrame(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain values and tensors."""
        return {"rows": self.rows, "best": self.best, "waited": self._waited, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self._waited, self.stopped = state_dict["waited"], state_dict["stopped"]

    def on_sanity_check_end(self, trainer: Trainer, pl_module: Pretraining) -> None:  # type: ignore[override]
        """Score the weights that training starts from."""
        self._record(trainer, pl_module)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Move the bar."""
        self._progress.update(self._plan.micro_batch_size * self._plan.world)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Pretraining) -> None:  # type: ignore[override]
        """Take stock after a round, and write its state."""
        if pl_module.diverged:
            return
        finished = pl_module.first_round + trainer.current_epoch + 1
        self._record(trainer, pl_module)
        patience = self._config.patience
        self.stopped = patience is not None and self._waited >= patience
        if self.stopped:
            logger.info("no improvement in %d validations: training ends early", self._waited)
            trainer.should_stop = True
        strategy = trainer.strategy
        state = {
            "network": strategy.lightning_module_state_dict(),
            "optimizer": strategy.optimizer_state(strategy.optimizers[0]),
            "journal": self.state_dict(),
        }
        if trainer.is_global_zero:
            save_state(self._folder / "states", finished, state)
            write_history(self.history, self._folder)
        strategy.barrier()

    def _record(self, trainer: Trainer, module: Pretraining) -> None:
        training, validation, baseline = module.take_means()
        step = module.step
        low, high = self._config.masking.range_at(step / self._plan.steps)
        seen = step * self._plan.batch_size
        self.rows.append(
            {
                "step": step,
                "samples": seen,
                "training_loss": training,
                "validation_loss": validation,
                "baseline_loss": baseline,
                "learning_rate": self._config.optimizer.learning_rate
                * self._config.optimizer.factor(max(step - 1, 0), self._plan.steps),
                "hidden_least": low,
                "hidden_most": high,
            }
        )
        logger.info("step %d: training %.4f, validation %.4f, baseline %.4f", step, training, validation, baseline)
        if trainer.logger is not None:
            trainer.logger.log_metrics(self.rows[-1], step=step)
        self._waited += 1
        if validation < self.best.get("loss", float("inf")):
            weights = {name: tensor.detach().cpu().clone() for name, tensor in module.network.state_dict().items()}
            self.best = {"loss": validation, "step": step, "weights": weights}
            self._waited = 0


def write_history(history: pd.DataFrame, folder: Path) -> None:
    """Write ``history.csv``, complete or not at all."""
    with replacing(folder / "history.csv") as unfinished:
        history.to_csv(unfinished, index=False)
