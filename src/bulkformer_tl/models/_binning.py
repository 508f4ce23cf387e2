"""From stored values to the bins that BioFormers reads, for each modality in its own way."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from bulkformer_tl._modalities import EXPRESSION, SAMPLE
from bulkformer_tl.encodings import segment_bins, value_bins
from bulkformer_tl.encodings._bins import Form

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch

Method = Literal["value", "segment"]


@dataclass(frozen=True)
class Binning:
    """How values of one modality become bins; see :func:`bulkformer_tl.pp.bin_expression`.

    Parameters
    ----------
    method
        ``"value"``, bins of equal length of the logarithm above a cutoff, or ``"segment"``, bins of equal size in each
        sample.
    n_bins
        Bins of ``"segment"``.
    bin_size
        b of ``"value"``.
    cutoff
        c of ``"value"``.
    form
        Which form of equation 5.
    target_sum
        Library that ``"value"`` scales samples to: a number, ``"mean"`` of the training samples, or ``None`` to bin
        values as they are.
    """

    method: Method = "value"
    n_bins: int = 10
    bin_size: float = 1 / 3
    cutoff: float = 8.0
    form: Form = "monotone"
    target_sum: float | Literal["mean"] | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.target_sum, int | float) and self.target_sum > 0
        for name, fine, needed in (
            ("method", self.method in get_args(Method), f"one of {list(get_args(Method))}"),
            ("n_bins", self.n_bins >= 2, "at least 2"),
            ("bin_size", self.bin_size > 0, "above 0"),
            ("cutoff", self.cutoff > 0, "above 0"),
            ("form", self.form in get_args(Form), f"one of {list(get_args(Form))}"),
            ("target_sum", number or self.target_sum in {"mean", None}, "'mean', above 0 or None"),
        ):
            if not fine:
                message = f"{name} of a binning must be {needed}, found {getattr(self, name)!r}"
                raise ValueError(message)

    def bins(self, values: NDArray[np.floating], library: NDArray[np.float64]) -> NDArray[np.float32]:
        """Cut values into bins.

        Parameters
        ----------
        values
            Not negative, (N, k); ``NaN`` where missing.
        library
            Sum of each sample, (N,); read only where there is a ``target_sum``.

        Returns
        -------
        Bins, (N, k), float32; ``NaN`` where missing.
        """
        missing = np.isnan(values)
        filled = np.where(missing, 0.0, values)
        if self.method == "value":
            if self.target_sum is not None:
                filled = filled * (float(self.target_sum) / np.where(library > 0, library, 1.0))[:, None]
            found = value_bins(filled, bin_size=self.bin_size, cutoff=self.cutoff, form=self.form).astype(np.float32)
        else:
            found = np.zeros(values.shape, dtype=np.float32)
            for row, sample in enumerate(values):
                measured = ~missing[row]
                found[row, measured] = segment_bins(sample[measured], self.n_bins)
        found[missing] = np.nan
        return found


#: What a modality that nothing else is said of is binned by: numbers of ``obs`` as they are, others by rank.
DEFAULTS = {EXPRESSION: Binning(target_sum="mean"), SAMPLE: Binning()}
OTHERS = Binning(method="segment")


@dataclass(frozen=True, eq=False)
class BinReader:
    """Turns rows of a table into bins of the features of a network.

    Parameters
    ----------
    match
        Where the features stand among the columns.
    columns
        Modality of each column, shape (n_vars,).
    features
        Modality of each feature, shape (G,).
    binnings
        How each modality is binned.
    n_bins
        Bins of the network, that of zero included; the last one takes all that is above it.
    """

    match: GeneMatch
    columns: NDArray[np.str_]
    features: NDArray[np.str_]
    binnings: Mapping[str, Binning]
    n_bins: int

    def __call__(self, block: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bin rows, (N, n_vars), ``NaN`` where missing, to (N, G), float32, ``NaN`` where missing.

        The library of a modality is the sum of all its columns, features or not.
        """
        values = block.astype(np.float64)
        aligned = self.match.align(values)
        found = np.full(aligned.shape, np.nan, dtype=np.float32)
        for modality, binning in self.binnings.items():
            own = self.features == modality
            library = np.nansum(values[:, self.columns == modality], axis=1)
            found[:, own] = binning.bins(aligned[:, own], library)
        return np.minimum(found, np.float32(self.n_bins - 1))


def as_binnings(given: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, Binning]:
    """Return a binning for each modality, from binnings or some of their fields; what is not given has its default.

    Raises
    ------
    ValueError
        If one is given for a modality that is not there, or a field is unknown.
    """
    unknown = sorted(set(given) - set(modalities))
    if unknown:
        message = f"binning names the modalities {unknown}, and the features are of {list(modalities)}"
        raise ValueError(message)
    known = {field.name for field in fields(Binning)}
    made = {}
    for name in modalities:
        entry = given.get(name, {})
        if isinstance(entry, Binning):
            made[name] = entry
            continue
        if strange := sorted(set(entry) - known):
            message = f"the binning of {name!r} has the unknown fields {strange}; there are {sorted(known)}"
            raise ValueError(message)
        made[name] = replace(DEFAULTS.get(name, OTHERS), **entry)
    return made
