"""What a perturbation does to the expression of a gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

Kind = Literal["delete", "overexpress", "inhibit", "activate", "set"]

#: What each kind may be told, one of them.
AMOUNTS: dict[str, tuple[str, ...]] = {
    "delete": (),
    "overexpress": (),
    "inhibit": ("factor", "quantile"),
    "activate": ("factor", "quantile"),
    "set": ("value",),
}
#: ln(1e6 + 1): a gene that is the whole transcriptome.
HIGHEST = float(np.log1p(1e6))


@dataclass(frozen=True)
class Change:
    """What a perturbation does to the expression of a gene. Other genes keep their values, so TPM is not rescaled.

    Parameters
    ----------
    kind
        ``"delete"``: 0 TPM. ``"overexpress"``: as much as the highest gene of the sample, which is what moving a gene
        to the first rank is for models of ranks. ``"inhibit"`` and ``"activate"``: less or more, by a factor or to a
        quantile. ``"set"``: to a value.
    factor
        What TPM, or counts, are multiplied with: from 0 to below 1 to inhibit, above 1 to activate. For a model of
        ranks 0 is a deletion: the gene's token goes, and nothing comes in from behind the context.
    quantile
        To this quantile of the gene among the samples of the cohort, between 0 and 1. A sample that is already below
        (inhibit) or above (activate) stays as it is. Of counts, which are divided by the sum of their sample.
    value
        ln(TPM+1); not for models that read counts.

    Raises
    ------
    ValueError
        If the kind does not exist, or its number is absent, superfluous or out of range.
    """

    kind: Kind
    factor: float | None = None
    quantile: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in AMOUNTS:
            message = f"a change is one of {list(AMOUNTS)}, found {self.kind!r}"
            raise ValueError(message)
        numbers = {name: getattr(self, name) for name in ("factor", "quantile", "value")}
        given = [name for name, number in numbers.items() if number is not None]
        wanted = AMOUNTS[self.kind]
        if len(given) != bool(wanted) or not set(given) <= set(wanted):
            needs = f"one of {' and '.join(f'{name}=' for name in wanted)}" if wanted else "no number"
            message = f"bf.tl.Change({self.kind!r}) takes {needs}, found {given or 'none'}"
            raise ValueError(message)
        low, high = {"inhibit": (0.0, 1.0), "activate": (1.0, np.inf)}.get(self.kind, (0.0, HIGHEST))
        fine = {
            "factor": lambda x: low <= x < 1 if self.kind == "inhibit" else low < x < high,
            "quantile": lambda x: 0 <= x <= 1,
            "value": lambda x: 0 <= x <= HIGHEST,
        }
        for name in given:
            if not fine[name](numbers[name]):
                ranges = {"factor": (low, high), "quantile": (0, 1), "value": (0, round(HIGHEST, 4))}
                message = f"{name} of {self.kind!r} lies between {ranges[name][0]:g} and {ranges[name][1]:g}, "
                raise ValueError(message + f"found {numbers[name]!r}")

    @classmethod
    def of(cls, change: str | Self) -> Self:
        """Return a change as it is, or the one that a kind without a number means.

        Parameters
        ----------
        change
            A kind or a change.

        Returns
        -------
        The change.
        """
        # the constructor checks what a text says
        return change if isinstance(change, cls) else cls(change)  # type: ignore[arg-type]

    def apply(
        self, values: NDArray[np.float32], *, highest: float, quantiles: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Change expression of genes.

        Parameters
        ----------
        values
            ln(TPM+1) of k genes in one sample, (k,).
        highest
            Largest value of the sample.
        quantiles
            The quantile of each gene, (k,), where the change asks for one.

        Returns
        -------
        Shape (k,), at most ln(1e6 + 1).
        """
        if self.kind == "delete":
            return np.zeros_like(values)
        if self.kind == "overexpress":
            return np.full_like(values, highest)
        if self.kind == "set":
            return np.full_like(values, self.value)
        if self.factor is not None:
            scaled = np.log1p(self.factor * np.expm1(values.astype(np.float64)))
            return np.minimum(scaled, HIGHEST).astype(np.float32)
        bound: Any = np.minimum if self.kind == "inhibit" else np.maximum
        return np.asarray(bound(values, quantiles), dtype=np.float32)

    def apply_counts(
        self, counts: NDArray[np.float32], *, quantiles: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Change counts of genes.

        Parameters
        ----------
        counts
            Of all genes of one sample, (G,), ``NaN`` where missing.
        quantiles
            The quantile of each gene, (G,), as a share of a sample's counts, where the change asks for one.

        Returns
        -------
        Shape (G,); infinite where a gene is put before all others.
        """
        if self.kind == "delete":
            return np.zeros_like(counts)
        if self.kind == "overexpress":
            return np.full_like(counts, np.inf)
        if self.factor is not None:
            return counts * np.float32(self.factor)
        bound: Any = np.minimum if self.kind == "inhibit" else np.maximum
        assert quantiles is not None  # noqa: S101  a value is refused for counts
        return np.asarray(bound(counts, quantiles * np.nansum(counts)), dtype=np.float32)

    def params(self) -> dict[str, Any]:
        """Return it as plain values.

        Returns
        -------
        The kind and its number.
        """
        numbers = {name: getattr(self, name) for name in ("factor", "quantile", "value")}
        return {"kind": self.kind, **{name: float(number) for name, number in numbers.items() if number is not None}}
