"""torch's compiler, where there is one."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)


def compiled(graph: Any, inputs: list[Any]) -> Any:
    """Compile a part of a network, or say why it runs as it is; a backend for :func:`torch.compile`."""
    from torch._dynamo import lookup_backend

    try:
        return lookup_backend("inductor")(graph, inputs)
    # a compiler that is absent, or too old, or meets what it does not know, each have an error of their own
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        logger.warning("torch cannot compile the network, which runs as it is: %s", reason)
        return graph.forward
