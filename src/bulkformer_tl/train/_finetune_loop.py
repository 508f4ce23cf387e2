"""The loop of adaptation: heads alone, then the encoder with them, the best weights kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bulkformer_tl.train._backbones import take
from bulkformer_tl.train._cohort import fewer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.train._backbones import Backbone
    from bulkformer_tl.train._cohort import Cohort
    from bulkformer_tl.train._finetune_config import FinetuneConfig
    from bulkformer_tl.train._finetune_heads import Features, Heads, Losses
    from bulkformer_tl.train._targets import Target

    Rows = NDArray[np.intp]

#: Samples that go through an encoder at once on a CPU.
MICRO_CPU = 4
#: Length that gradients are cut to.
CLIP = 1.0


class Loop:
    """Trains heads, and the weights of an encoder that ask for it.

    Parameters
    ----------
    cohort
        The samples.
    way
        The encoder.
    heads
        On its vectors.
    losses
        What predictions cost.
    targets
        With what is known.
    weights
        Of the encoder that are trained, by name.
    config
        How.
    seed
        Of order and dropout.
    """

    def __init__(
        self,
        cohort: Cohort,
        way: Backbone,
        heads: Heads,
        *,
        losses: Losses,
        targets: Mapping[str, Target],
        weights: Mapping[str, Tensor],
        config: FinetuneConfig,
        seed: int,
    ) -> None:
        self._cohort, self._way, self._heads, self._losses = cohort, way, heads, losses
        self._weights, self._config, self._seed = dict(weights), config, seed
        self._device = cohort.device
        self._truth = {
            name: torch.from_numpy(target.values).to(self._device)
            for name, target in targets.items()
            if target.kind != "genes"
        }
        self._of_genes = {
            name: torch.from_numpy(target.values)[cohort.genes].to(self._device)
            for name, target in targets.items()
            if target.kind == "genes" and cohort.genes is not None
        }
        self.micro = config.micro_batch_size or (MICRO_CPU if self._device.type == "cpu" else config.batch_size)
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.diverged = False

    def train_heads(self, train: Rows, validation: Rows) -> None:
        """Train the heads on vectors of the encoder as it is, all samples at once."""
        features, held = (self._of(self._cohort.frozen, rows) for rows in (train, validation))
        self._record("heads", 0, self._loss(features, train).item(), self._loss(held, validation).item())
        optimizer = torch.optim.AdamW(
            self._heads.parameters(), lr=self._config.head_learning_rate, weight_decay=self._config.weight_decay
        )
        # an epoch of heads is one step, so that more of them go by without a better one
        patience = 4 * self._config.patience
        for epoch in range(1, self._config.head_epochs + 1):
            optimizer.zero_grad()
            loss = self._loss(features, train)
            loss.backward()  # type: ignore[no-untyped-call]
            if not self._finite(loss):
                break
            optimizer.step()
            with torch.no_grad():
                found = self._loss(held, validation).item()
            if self._record("heads", epoch, loss.item(), found) >= patience:
                break
        self._restore()

    def train_encoder(self, train: Rows, validation: Rows, progress: Callable[[int], object]) -> None:
        """Train the encoder and the heads together from where the heads are."""
        config = self._config
        optimizer = torch.optim.AdamW(
            [
                {"params": list(self._weights.values()), "lr": config.encoder_rate},
                {"params": list(self._heads.parameters()), "lr": config.head_learning_rate / 10},
            ],
            weight_decay=config.weight_decay,
        )
        for epoch in range(1, config.epochs + 1):
            order = np.random.default_rng([self._seed, epoch]).permutation(train)
            costs = []
            for step, start in enumerate(range(0, len(order), config.batch_size)):
                rows = order[start : start + config.batch_size]
                cost = self._guarded(self._step, rows, optimizer, self._seed + 1_000_003 * epoch + step)
                if self.diverged:
                    break
                costs.append(cost)
                progress(len(rows))
            if self.diverged:
                break
            found = self._validate(validation)
            if self._record("encoder", epoch, float(np.mean(costs)), found) >= config.patience:
                progress((config.epochs - epoch) * len(train))
                break
        self._restore()

    def _step(self, rows: Rows, optimizer: torch.optim.Optimizer, seed: int) -> float:
        self._way.network.train()
        torch.manual_seed(seed)
        optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._features(rows), rows)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
        length = torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        if self._finite(loss) and self._finite(length):
            optimizer.step()
        return loss.item()

    def _features(self, rows: Rows) -> Features:
        """Send samples through the encoder, a few at once; of several parts each is computed again in the backward."""
        parts = [rows[start : start + self.micro] for start in range(0, len(rows), self.micro)]
        if len(parts) == 1:
            return self._forward(rows)
        found = [checkpoint(self._forward, part, use_reentrant=False) for part in parts]
        genes = [vectors for _, vectors in found if vectors is not None]
        return torch.cat([pooled for pooled, _ in found]), torch.cat(genes) if genes else None

    def _forward(self, rows: Rows) -> Features:
        batch = take(self._cohort.inputs, rows, self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
            pooled, vectors = self._way.vectors(batch, self._cohort.genes)
        return pooled.float(), None if vectors is None else vectors.float()

    def _validate(self, rows: Rows) -> float:
        self._cohort.step = min(self.micro, self._cohort.step)
        found = list(self._cohort.encode(self._way, rows))
        genes = [vectors for _, vectors in found if vectors is not None]
        features = torch.cat([pooled for pooled, _ in found]), torch.cat(genes) if genes else None
        with torch.no_grad():
            return self._loss(features, rows).item()

    def _loss(self, features: Features, rows: Rows) -> Tensor:
        chosen = torch.from_numpy(rows)
        truth = {name: values[chosen.to(values.device)] for name, values in self._truth.items()}
        return self._losses(features, truth | self._of_genes)

    def _of(self, features: Features, rows: Rows) -> Features:
        chosen = torch.from_numpy(rows)
        pooled, vectors = features
        return pooled[chosen].to(self._device), None if vectors is None else vectors[chosen].to(self._device)

    def _guarded(self, work: Callable[..., float], *arguments: Any) -> float:
        """Do some work, with fewer samples at once whenever memory runs out."""
        while True:
            try:
                return work(*arguments)
            except (RuntimeError, MemoryError) as error:
                self.micro = fewer(self.micro, error)

    def _finite(self, number: Tensor) -> bool:
        finite = bool(torch.isfinite(number))
        self.diverged |= not finite
        return finite

    def _record(self, stage: str, epoch: int, training: float, validation: float) -> int:
        """Take stock; return how many epochs of this stage have gone by without a better one."""
        self.rows.append({"stage": stage, "epoch": epoch, "training_loss": training, "validation_loss": validation})
        if validation < self.best.get("loss", np.inf):
            self.best = {
                "loss": validation,
                "stage": stage,
                "epoch": epoch,
                "heads": {name: tensor.clone() for name, tensor in self._heads.state_dict().items()},
                "encoder": {name: weight.detach().clone() for name, weight in self._weights.items()},
            }
        same = self.best.get("stage") == stage
        return epoch - (self.best["epoch"] if same else 0)

    @torch.no_grad()
    def _restore(self) -> None:
        if not self.best:
            return
        self._heads.load_state_dict(self.best["heads"])
        for name, weight in self._weights.items():
            weight.copy_(self.best["encoder"][name])
