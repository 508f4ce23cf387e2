"""What a Geneformer makes of a sample before and after some genes change: passes over changed lists of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.models._encoder import samples_at_once
from bulkformer_tl.models._rank_request import check_rank_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.models._geneformer import Geneformer
    from bulkformer_tl.models._perturb import Edit

    Numbers = NDArray[np.float64]
    Tokens = NDArray[np.int64]

#: What a gene becomes that is put before all others.
FIRST = np.float32(np.inf)


class RankPasses:
    """Passes of a Geneformer through samples and changed copies of them.

    Parameters
    ----------
    model
        The network with its genes, tokens and medians.
    pooling, observed_only, summary_columns
        What the sample vector is, as :meth:`Geneformer.encode` takes it.
    """

    #: No pass can be left out, since a token that moves moves the position of others.
    linear = False

    def __init__(
        self,
        model: Geneformer,
        *,
        pooling: str | None = None,
        observed_only: bool | None = None,
        summary_columns: bool = False,
    ) -> None:
        self.model = model
        self.options: dict[str, Any] = {"pooling": pooling, "emb_layer": model.emb_layer}
        self.request = check_rank_request(
            model,
            genes=None,
            outputs=("pooled",),
            pooling=pooling,
            pool_genes=None,
            observed_only=observed_only,
            extra=summary_columns,
        )
        #: Whether a sample is compared gene by gene, as published for models without ``<cls>``.
        self.genewise = pooling is None and not model.has_specials

    @property
    def edges(self) -> NDArray[np.int64]:
        """None: this model has no gene graph, (2, 0)."""
        return np.empty((2, 0), dtype=np.int64)

    def tokens(self, values: NDArray[np.float32]) -> Tokens:
        """Return the tokens of one sample, (L,), of its counts (G,)."""
        return self.model.tokenize(values[None])[0]

    def vectors(self, values: NDArray[np.float32]) -> Numbers:
        """Return sample vectors, (N, D), of counts (N, G), ``NaN`` where missing."""
        return self._pooled(self.model.tokenize(values))

    def differences(self, values: NDArray[np.float32], edits: Sequence[Edit]) -> Numbers:
        """Return how far each change moves the sample vector, (n, D).

        Parameters
        ----------
        values
            Counts of one sample, (G,), ``NaN`` where missing.
        edits
            Changes, each by itself.
        """
        tokens = self.tokens(values)
        return self._pooled([self.changed(values, tokens, edit) for edit in edits]) - self._pooled([tokens])

    def token_vectors(self, tokens: Tokens) -> Numbers:
        """Return the vectors of a sample's tokens, (L, D)."""
        return np.asarray(self.model.token_vectors([tokens])[0].numpy(), dtype=np.float64)

    def token_differences(
        self, values: NDArray[np.float32], tokens: Tokens, before: Numbers, edits: Sequence[Edit]
    ) -> Numbers:
        """Return how far each change moves the vectors of a sample's tokens, (n, L, D); ``NaN`` of those that go.

        Parameters
        ----------
        values
            Counts of one sample, (G,), ``NaN`` where missing.
        tokens, before
            Of that sample, (L,), and their vectors, (L, D).
        edits
            Changes, each by itself.
        """
        lists = [self.changed(values, tokens, edit) for edit in edits]
        step = samples_at_once(self.model.device, None)
        moves = np.full((len(edits), *before.shape), np.nan)
        place = np.empty(len(self.model.gene_of), dtype=np.int64)
        for start in range(0, len(lists), step):
            part = lists[start : start + step]
            for row, (own, after) in enumerate(zip(part, self.model.token_vectors(part), strict=True), start=start):
                place[:] = -1
                place[own] = np.arange(len(own))
                there = place[tokens]
                moves[row, there >= 0] = after.numpy()[there[there >= 0]] - before[there >= 0]
        return moves

    def changed(self, values: NDArray[np.float32], tokens: Tokens, edit: Edit) -> Tokens:
        """Return the tokens after a change.

        As published, the token of a deleted gene is taken out, and nothing comes in from behind the context; that of an
        overexpressed one goes to the front, where several stand in the order in which they are named. Any other change
        is one of counts, which are ranked again; where it leaves 0 of all its genes, by a factor or a quantile, it is a
        deletion.

        Parameters
        ----------
        values
            Counts of one sample, (G,), ``NaN`` where missing.
        tokens
            Of that sample, (L,).
        edit
            Genes and what their counts become: 0 where deleted, :data:`FIRST` where put before all others.
        """
        genes, becomes = edit
        if ((becomes != 0) & (becomes != FIRST)).any():
            again = values.copy()
            again[genes] = becomes
            return self.tokens(again)
        own = self.model.dictionary.tokens[genes]
        rest, ends = tokens[~np.isin(tokens, own)], int(self.model.has_specials)
        found = np.concatenate([rest[:ends], own[becomes == FIRST], rest[ends:]]).astype(np.int64)
        surplus = max(len(found) - self.model.context, 0)
        # genes at the end fall out, and what closes the list stays
        return np.delete(found, np.arange(len(found) - ends - surplus, len(found) - ends))

    def _pooled(self, tokens: Sequence[Tokens]) -> Numbers:
        pooled: Any = self.model._run(tokens, self.request).pooled
        return np.asarray(pooled.numpy(), dtype=np.float64)
