"""What a network makes of a sample before and after some values change, and the slopes in between."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl.models._mini import MiniNetwork
from bulkformer_tl.models._pooling import Pooling, pool
from bulkformer_tl.models._request import check_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.models._bulkformer import BulkFormer, Output

    Numbers = NDArray[np.float64]
    #: Positions of genes in the vocabulary, (k,), and what their values become, (k,).
    Edit = tuple[NDArray[np.int64], NDArray[np.float32]]

#: Changed samples that are handed over at once; a bound on memory, since results do not depend on it.
ROWS = 32


class Passes:
    """Passes of one network through samples and changed copies of them.

    The sample vector of the embedded checkpoint is linear in the values as long as the same genes are measured, so that
    a change moves it by a known response of each gene; no pass is run for it. All others run the network again.

    Parameters
    ----------
    model
        The network and its genes.
    pooling, observed_only, summary_columns
        What the sample vector is, as :meth:`BulkFormer.encode` takes it.
    batch_size
        Samples at once on a GPU.
    """

    def __init__(
        self,
        model: BulkFormer,
        *,
        pooling: str | None = None,
        observed_only: bool | None = None,
        summary_columns: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.options: dict[str, Any] = {
            "pooling": pooling,
            "observed_only": observed_only,
            "summary_columns": summary_columns,
        }
        self.request = check_request(
            model, genes=None, outputs=("pooled",), pool_genes=None, protein=False, **self.options
        )
        self.linear = isinstance(model.network, MiniNetwork) and not self.request.pools
        self._response: tuple[NDArray[np.bool_], Tensor] | None = None

    @property
    def edges(self) -> NDArray[np.int64]:
        """Of the model's gene graph, (2, E)."""
        found: NDArray[np.int64] = self.model.graph[0].cpu().numpy()
        return found

    def vectors(self, values: NDArray[np.float32]) -> Numbers:
        """Return sample vectors, (N, D), of values (N, G), ``NaN`` where missing."""
        return self._encode(values, "pooled").astype(np.float64)

    def differences(self, values: NDArray[np.float32], edits: Sequence[Edit]) -> Numbers:
        """Return how far each change moves the sample vector.

        Parameters
        ----------
        values
            One sample, (G,), ``NaN`` where missing.
        edits
            Changes of measured genes, each by itself.

        Returns
        -------
        Shape (n, D); each row is computed by itself, so that it does not depend on the others.
        """
        if self.linear:
            return np.stack([self._respond(values, edit) for edit in edits])
        steps = range(0, len(edits), ROWS)
        after = np.concatenate([self.vectors(changed(values, edits[step : step + ROWS])) for step in steps])
        return after - self.vectors(values[None])

    def outputs(self, values: NDArray[np.float32], edits: Sequence[Edit], output: Output) -> NDArray[np.float32]:
        """Return ``"genes"`` (n, G, D) or ``"expression"`` (n, G) of a sample that was changed in n ways."""
        return self._encode(changed(values, edits), output)

    def slopes(self, values: NDArray[np.float32], directions: Numbers) -> Numbers:
        """Return how projections of the sample vector move with each value, by the backward pass.

        Parameters
        ----------
        values
            One sample, (G,), ``NaN`` where missing.
        directions
            What to project the sample vector on, (C, D).

        Returns
        -------
        Shape (C, G), per unit of ln(TPM+1); 0 for missing genes.
        """
        observed = ~np.isnan(values)
        if self.linear:
            factors, response = self.model.network.factors, self._responses(observed)
            inward = torch.from_numpy(directions) @ response.T
            found = (inward.to(factors.noise) @ factors.loadings.T) * (1 / factors.noise)
            return np.where(observed, found.double().cpu().numpy(), 0.0)
        return np.where(observed, self._backward(values, observed, directions), 0.0)

    def _encode(self, values: NDArray[np.float32], output: Output) -> NDArray[np.float32]:
        options = self.options if output == "pooled" else {}
        encoded = self.model.encode(values, outputs=(output,), batch_size=self.batch_size, **options)
        found: NDArray[np.float32] = getattr(encoded, output).numpy()
        return found

    def _respond(self, values: NDArray[np.float32], edit: Edit) -> Numbers:
        genes, becomes = edit
        factors, response = self.model.network.factors, self._responses(~np.isnan(values))
        at = torch.from_numpy(genes).to(factors.noise.device)
        step = torch.from_numpy(becomes.astype(np.float64) - values[genes]).to(response)
        codes = factors.codes[at].to(response) * factors.scale.to(response)
        inward = (codes * (step / factors.noise[at].to(response))[:, None]).sum(dim=0)
        # one product of the same shape for each change, so that the sums do not depend on how many there are
        found: Numbers = torch.mv(response.T, inward).numpy()
        return found

    def _responses(self, observed: NDArray[np.bool_]) -> Tensor:
        """Return the leading columns of the inverse precision of the factor scores, (K, D), float64 on the CPU."""
        if self._response is None or not np.array_equal(self._response[0], observed):
            network = self.model.network
            lower = network.factors._solve(torch.from_numpy(observed).to(self.model.device), spread=False)[0].cpu()
            unit = torch.eye(len(lower), dtype=lower.dtype)[:, : network.config.n_scores]
            self._response = observed, torch.cholesky_solve(unit, lower)
        return self._response[1]

    def _backward(self, values: NDArray[np.float32], observed: NDArray[np.bool_], directions: Numbers) -> Numbers:
        device = self.model.device
        x = torch.from_numpy(np.where(observed, values, 0.0).astype(np.float32)).to(device)[None].requires_grad_()
        shown = torch.from_numpy(observed).to(device)[None]
        slopes = []
        with _differentiable(self.model.network), torch.enable_grad():
            vector = self._vector(x, shown)
            for direction in torch.from_numpy(directions).to(vector):
                (slope,) = torch.autograd.grad(vector, x, direction, retain_graph=True)
                slopes.append(slope[0].double().cpu().numpy())
        return np.stack(slopes)

    def _vector(self, values: Tensor, observed: Tensor) -> Tensor:
        network = self.model.network
        if not self.request.pools:
            only: Tensor = network.sample_vector(values, observed)[0]
            return only
        hidden = network(values, observed)[0]
        pooled = pool(hidden[self.request.pool_mask(observed)[0]], cast("Pooling", self.request.pooling))
        if not self.request.summary_columns:
            return pooled
        summaries = network.summaries(values, observed)[0]
        return torch.cat([pooled, summaries * (3 if self.request.pooling == "all" else 1)])


def changed(values: NDArray[np.float32], edits: Sequence[Edit]) -> NDArray[np.float32]:
    """Return copies of a sample (G,), each with one change, (n, G)."""
    rows = np.repeat(values[None], len(edits), axis=0)
    for row, (genes, becomes) in zip(rows, edits, strict=True):
        row[genes] = becomes
    return rows


@contextmanager
def _differentiable(network: torch.nn.Module) -> Iterator[None]:
    """Let gradients flow to the input alone; what was computed in inference mode is computed again."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for module in network.modules():
        if hasattr(module, "forget"):
            untyped: Any = module
            untyped.forget()
    network.requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()
