"""The plain way to ask a network about hidden genes, through its own modules: the reference of the fast pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def hidden_predictions(network: Any, values: Tensor, observed: Tensor, hidden: Tensor) -> Tensor:
    """Predict the hidden genes.

    Parameters
    ----------
    network
        Network of one of the families.
    values
        ln(TPM+1), (N, G); 0 where not observed.
    observed
        What the network sees, (N, G).
    hidden
        What it has to predict, (N, G).

    Returns
    -------
    Predicted ln(TPM+1) at the K hidden entries, (K,), in the order of ``hidden.nonzero()``.
    """
    predicted: Tensor = network.predict(network(values, observed), values, observed)
    return predicted[hidden]


def hidden_distribution(network: Any, values: Tensor, observed: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Predict the hidden genes and the standard deviation of each prediction, both (K,).

    Parameters are those of :func:`hidden_predictions`; the network has a learned deviation.
    """
    vectors = network(values, observed)
    mean: Tensor = network.predict(vectors, values, observed)
    deviation: Tensor = network.deviation(vectors, values, observed)
    return mean[hidden], deviation[hidden]
