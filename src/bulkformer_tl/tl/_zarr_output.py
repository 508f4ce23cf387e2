"""Where results are streamed to: a new zarr store, complete or unfinished and resumable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class ZarrOutput:
    """A zarr store to stream results to, and what to do about what is there already.

    A path alone, ``output="out.zarr"``, means ``ZarrOutput("out.zarr")``. Until it is complete the store is called
    ``.out.zarr.unfinished``, in the same folder.

    Parameters
    ----------
    path
        The store, ending in ``.zarr``.
    resume
        Go on where an unfinished run of the same call stopped. ``False`` refuses if there is an unfinished run.
    overwrite
        Replace a store that is there already, when the new one is complete; and drop an unfinished run that cannot be
        resumed, or is not to be.
    """

    path: str | Path
    resume: bool = True
    overwrite: bool = False

    @classmethod
    def of(cls, output: str | Path | Self) -> Self:
        """Return an output as it is, or the one that a path means.

        Parameters
        ----------
        output
            A path or an output.

        Returns
        -------
        The output.
        """
        return output if isinstance(output, cls) else cls(output)  # type: ignore[arg-type]

    @property
    def target(self) -> Path:
        """The store."""
        return Path(self.path)

    @property
    def unfinished(self) -> Path:
        """Folder of the run until it is complete."""
        return self.target.with_name(f".{self.target.name}.unfinished")

    def check(self) -> None:
        """Refuse, before any work, a place that cannot be written to.

        Raises
        ------
        ValueError
            If the path does not end in ``.zarr``.
        FileNotFoundError
            If its folder is not there.
        FileExistsError
            If something is there that may not be replaced, or an unfinished run that may not be resumed.
        """
        self.check_target()
        if self.unfinished.exists() and not (self.resume or self.overwrite):
            message = (
                f"{self.unfinished} holds an unfinished run; pass output=bf.tl.ZarrOutput({str(self.target)!r}, "
                "resume=True) to go on with it, or overwrite=True to begin anew"
            )
            raise FileExistsError(message)

    def check_target(self) -> None:
        """Refuse a place that a complete store cannot take.

        Raises
        ------
        ValueError
            If the path does not end in ``.zarr``.
        FileNotFoundError
            If its folder is not there.
        FileExistsError
            If something is there that may not be replaced.
        """
        target = self.target
        if target.suffix != ".zarr":
            message = f"output is a zarr store and ends in .zarr, found {str(target)!r}"
            raise ValueError(message)
        if not target.parent.is_dir():
            message = f"there is no folder {target.parent} to write {target.name} to"
            raise FileNotFoundError(message)
        if target.exists() and not self.overwrite:
            message = f"{target} exists; pass output=bf.tl.ZarrOutput({str(target)!r}, overwrite=True) to replace it"
            raise FileExistsError(message)
        if target.exists() and not any((target / name).is_file() for name in ("zarr.json", ".zgroup")):
            message = f"{target} is something else than a zarr store and is not replaced"
            raise FileExistsError(message)
