"""The network, its objective and its optimiser as Lightning takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from bulkformer_tl.train._batches import RoundSampler
from bulkformer_tl.train._masks import DROPOUT

if TYPE_CHECKING:
    from torch import Tensor

    from bulkformer_tl.models._layers import Encoder
    from bulkformer_tl.train._batches import Plan, TrainingBatches, ValidationBatches
    from bulkformer_tl.train._config import PretrainConfig
    from bulkformer_tl.train._corpus import Moments
    from bulkformer_tl.train._objectives import Batch, Objective


class Pretraining(LightningModule):
    """One run.

    Parameters
    ----------
    network
        What is trained.
    objective
        What for.
    config
        How.
    plan
        How samples are divided.
    training, validation
        Batches.
    moments
        Of the genes, for the baseline.
    workers
        Processes that read.
    """

    def __init__(
        self,
        network: Encoder,
        objective: Objective,
        config: PretrainConfig,
        plan: Plan,
        *,
        training: TrainingBatches,
        validation: ValidationBatches,
        moments: Moments,
        workers: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self._config = config
        self._plan = plan
        self._training = training
        self._validation = validation
        self._moments = moments
        self._workers = workers
        #: State of the optimiser to go on from.
        self.resume_from: dict[str, Any] | None = None
        self.first_round = 0
        #: Whether a gradient was not finite; its step was not taken.
        self.diverged = False
        #: Sums since the last validation, and numbers of samples: loss, validation loss, baseline.
        self.sums: Tensor
        self.counts: Tensor

    def on_fit_start(self) -> None:
        """Start counting."""
        self.sums, self.counts = (torch.zeros(3, device=self.device, dtype=torch.float64) for _ in range(2))

    @property
    def step(self) -> int:
        """Optimiser steps of the whole run so far."""
        return self.first_round * self._plan.steps_per_round + int(self.global_step)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Make this process' share of the training batches."""
        sampler = RoundSampler(self._plan, self.global_rank, self.first_round)
        return DataLoader(
            self._training,
            batch_size=None,
            sampler=sampler,
            num_workers=self._workers,
            pin_memory=self.on_gpu,
            persistent_workers=self._workers > 0,
            # threads of a process that divides, torch's among them, may leave locks behind for ever
            multiprocessing_context="spawn" if self._workers else None,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Make this process' share of the validation batches."""
        shares = range(self.global_rank, len(self._validation), self._plan.world)
        return DataLoader(self._validation, batch_size=None, sampler=list(shares), pin_memory=self.on_gpu)

    @property
    def on_gpu(self) -> bool:
        """Whether tensors go to a GPU."""
        return bool(self.device.type == "cuda")

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the mean loss of a micro-batch; dropout depends on the seed and its position alone."""
        seed = np.random.SeedSequence([self._config.seed, DROPOUT, int(batch["position"])]).generate_state(1)[0]
        with torch.random.fork_rng([self.device] if self.on_gpu else []):
            torch.manual_seed(int(seed))
            losses = self.objective.losses(self.network, batch)
        self._count(0, losses.detach())
        loss: Tensor = losses.mean()
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Add up the losses of a batch, and those of the genes' means."""
        self._count(1, self.objective.losses(self.network, batch))
        self._count(2, self.objective.baseline(batch, self._moments))

    def _count(self, column: int, losses: Tensor) -> None:
        self.sums[column] += losses.double().sum()
        self.counts[column] += len(losses)

    def take_means(self) -> list[float]:
        """Return the mean losses of all processes since the last call, and start again."""
        sums, counts = (self.trainer.strategy.reduce(part, reduce_op="sum") for part in (self.sums, self.counts))
        self.on_fit_start()
        return [float(mean) for mean in (sums / counts)]

    def configure_optimizers(self) -> Any:
        """Make AdamW and its schedule, at the step where the run stands."""
        chosen = self._config.optimizer
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": chosen.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=chosen.learning_rate, betas=chosen.betas)
        if self.resume_from is not None:
            optimizer.load_state_dict(self.resume_from)
        begin = self.first_round * self._plan.steps_per_round
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = chosen.learning_rate
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: chosen.factor(begin + step, self._plan.steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient; one that is not finite is dropped, and ends the run."""
        largest = self._config.optimizer.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), largest)
        if not bool(norm.isfinite()):
            self.diverged = True
            self.trainer.should_stop = True
            # without gradients the step changes nothing
            optimizer.zero_grad(set_to_none=True)
