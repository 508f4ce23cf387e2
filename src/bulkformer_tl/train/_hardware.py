"""Where training runs, and Lightning's loop on it."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Trainer

from bulkformer_tl._settings import settings
from bulkformer_tl.models._compiled import compiled
from bulkformer_tl.train._check import refuse_unless

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkformer_tl.train._batches import Plan
    from bulkformer_tl.train._config import PretrainConfig
    from bulkformer_tl.train._journal import Journal
    from bulkformer_tl.train._module import Pretraining

#: Where torchrun, SLURM and Lightning tell a process its number, among all, on its machine, or its machine's.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Hardware:
    """Devices and processes.

    Parameters
    ----------
    device
        Torch device of this process.
    devices
        Processes on this machine.
    nodes
        Machines.
    strategy
        ``"auto"``, ``"ddp"`` or ``"fsdp"``.
    workers
        Processes that read ahead, for each device.
    """

    device: str
    devices: int
    nodes: int
    strategy: str
    workers: int

    @classmethod
    def find(cls, device: str | None, *, devices: int, nodes: int, strategy: str, workers: int) -> Hardware:
        """Check what was asked for against what is there.

        Raises
        ------
        ValueError
            If there are fewer devices, or the strategy is unknown.
        """
        name = settings.device if device is None else device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        for what, number, least in (("devices", devices, 1), ("nodes", nodes, 1), ("workers", workers, 0)):
            whole = isinstance(number, int) and number >= least
            refuse_unless(whole, f"{what} must be a whole number from {least}, found {number!r}")
        known = ("auto", "ddp", "fsdp")
        refuse_unless(strategy in known, f"strategy must be one of {list(known)}, found {strategy!r}")
        if torch.device(name).type == "cuda":
            there = torch.cuda.device_count()
            refuse_unless(there >= devices, f"devices={devices}, but there are {there} GPUs here; pass device='cpu'?")
        if strategy == "auto" and devices * nodes > 1:
            strategy = "ddp"
        return cls(name, devices, nodes, strategy, workers)

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes

    @property
    def is_first(self) -> bool:
        """Whether this process writes, as whoever started the processes says."""
        return self.world == 1 or all(int(os.environ.get(name, "0")) == 0 for name in _RANKS)

    def fit(self, module: Pretraining, journal: Journal, config: PretrainConfig, plan: Plan, *, folder: Path) -> None:
        """Run Lightning's loop over the rounds that are left."""
        where = torch.device(self.device)
        with _quiet():
            trainer = Trainer(
                accelerator={"cuda": "gpu"}.get(where.type, where.type),
                devices=[where.index] if where.index is not None and self.devices == 1 else self.devices,
                num_nodes=self.nodes,
                strategy=self.strategy,
                precision="bf16-mixed" if config.precision == "bf16" else "32-true",
                max_epochs=plan.rounds - module.first_round,
                accumulate_grad_batches=plan.accumulate,
                # the weights that training starts from are scored once
                num_sanity_val_steps=0 if module.first_round else -1,
                callbacks=[journal],
                logger=_tensorboard(folder),
                plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
                log_every_n_steps=10,
                use_distributed_sampler=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=folder,
            )
            if config.compile:
                module.network.compile(backend=compiled)
            _fit(trainer, module)


def _fit(trainer: Trainer, module: Pretraining) -> None:
    """Run the loop; an interruption stays one, where Lightning leaves the process and SIGINT switched off."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module)
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, before)
        message = "interrupted; the same call goes on after the last checkpoint"
        raise KeyboardInterrupt(message) from None


def _tensorboard(folder: Path) -> Any:
    if find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="logs", version="")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from announcing the machine and from advice on what is decided here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
            # Lightning calls what newer torch deprecates
            warnings.filterwarnings("ignore", message=".*treespec", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
