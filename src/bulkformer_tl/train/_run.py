"""The folder of a run: whose it is, whether it may go on, and the bundle that it ends with."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bulkformer_tl.train._check import refuse_unless

if TYPE_CHECKING:
    from pathlib import Path

    from bulkformer_tl.models import Encoder
    from bulkformer_tl.train._config import PretrainConfig

_FORMAT = "bulkformer_tl pretraining 1"


@dataclass(frozen=True)
class Run:
    """A folder that will hold a bundle, and below ``training`` all that leads to it.

    Parameters
    ----------
    out
        The folder.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """Configuration, history, states and logs."""
        return self.out / "training"

    @property
    def finished(self) -> bool:
        """Whether the model is there."""
        from bulkformer_tl.models._geneformer_files import is_geneformer

        return (self.out / "manifest.json").is_file() or is_geneformer(self.out)

    def check(self, config: PretrainConfig, facts: dict[str, Any]) -> bool:
        """Return whether the folder holds this very run already.

        Parameters
        ----------
        config
            Asked for now.
        facts
            What else decides the outcome: checksums of corpus, graph and of the model that training starts from.

        Raises
        ------
        FileExistsError
            If the folder holds something else.
        ValueError
            If it holds a run with another configuration, corpus, graph or start; the message says what differs.
        """
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return False
        marker = self.folder / "run.json"
        if not marker.is_file():
            message = f"{self.out} holds something that is no pretraining run and is left as it is; choose a new folder"
            raise FileExistsError(message)
        before = json.loads(marker.read_text(encoding="utf-8"))
        old, new = _flat(before.get("config", {})), _flat(config.to_dict())
        differing = sorted(key for key in old | new if old.get(key) != new.get(key))
        changes = [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in differing]
        changes += [f"another {key}" for key in facts if before.get(key) != facts[key]]
        refuse_unless(
            not changes,
            f"{self.out} holds a run that differs from this one ({'; '.join(changes)}). To resume it pass the same "
            "again; for a new run choose another folder",
        )
        return True

    def begin(self, config: PretrainConfig, facts: dict[str, Any]) -> None:
        """Make the folder, complete or not at all."""
        self.out.mkdir(parents=True, exist_ok=True)
        unfinished = self.out.parent / f".{self.out.name}.{uuid4().hex[:8]}"
        try:
            unfinished.mkdir()
            config.write(unfinished / "config.yaml")
            content = {"format": _FORMAT, **facts, "config": config.to_dict()}
            (unfinished / "run.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
            unfinished.rename(self.folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def finish(self, model: Encoder) -> None:
        """Write the model, what tells that it is whole last, and delete the states, which nothing needs any more."""
        from bulkformer_tl.models import convert

        made = convert(model, self.folder / f"bundle-{uuid4().hex[:8]}")
        last = ("config.json", "manifest.json")
        for path in sorted(made.iterdir(), key=lambda path: last.index(path.name) if path.name in last else -1):
            os.replace(path, self.out / path.name)  # noqa: PTH105  Path.replace says less about what it does
        made.rmdir()
        shutil.rmtree(self.folder / "states", ignore_errors=True)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
