"""What is asked of the anatomy of a series, what it is given, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.anatomy.atlases import AtlasSpec
from asl_bids_app.anatomy.spaces import Space
from asl_bids_app.bids.uris import RAW, TEMPLATEFLOW
from asl_bids_app.errors import AslAppError
from asl_bids_app.notices import Notice
from asl_bids_app.wording import title_of

if TYPE_CHECKING:
    from asl_bids_app.anatomy.records import Registration
    from asl_bids_app.anatomy.signals import Signals
    from asl_bids_app.anatomy.tissue_flows import Data, TissueFlows


LAID: Final = ("cbf", "att", "abv")
"""Keys of the maps that are laid in other spaces, where a series has them; with their SDs."""


@dataclass(frozen=True)
class Request:
    """What is asked for of the anatomy.

    Attributes
    ----------
    bids_dir, output_dir : Path
    derivatives : mapping of str to Path
    spaces : tuple of Space
    atlases : tuple of AtlasSpec
    template_dir : Path or None
        ``TEMPLATEFLOW_HOME``.
    threads : int
        Of the processor.
    pvc : str
        Method of the partial volume correction; empty for none.
    """

    bids_dir: Path
    output_dir: Path
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    spaces: tuple[Space, ...] = ()
    atlases: tuple[AtlasSpec, ...] = ()
    template_dir: Path | None = None
    threads: int = 1
    pvc: str = ""

    @property
    def atlas_places(self) -> list[Path]:
        """The folders in which an atlas without a path is searched."""
        home = [] if self.template_dir is None else [self.template_dir]
        return [*self.derivatives.values(), *home]

    @property
    def datasets(self) -> dict[str, Path]:
        """The datasets that files come from, as `dataset_uri` takes them."""
        home = {} if self.template_dir is None else {TEMPLATEFLOW: self.template_dir}
        return {**home, **self.derivatives, RAW: self.bids_dir, "": self.output_dir}


@dataclass(frozen=True, eq=False)
class UnitMaps:
    """What a series hands to the anatomy; volumes are (X, Y, Z).

    Attributes
    ----------
    entities : mapping
    images : mapping of str to array
        Contrasts by which it is registered, such as ``M0`` and ``ΔM``.
    mask, failed : array of bool
        Brain, and voxels without an estimate.
    affine : array, shape (4, 4)
    maps, sds : mapping of str to array
        Maps by keys of the output table, and their standard deviations.
    signals : Signals or None
        What regions are fitted from.
    estimator : str
    calibration_sd : float
        Relative doubt about the calibration that the standard deviations of CBF hold.
    common : mapping of str to float
        Share of the variance, calibration apart, that neighbouring voxels of a standard deviation
        have in common, by its key; none by default, as of voxelwise fits.
    sidecar : mapping
        What all sidecars of the series say.
    data : Data or None
        What is corrected for partial volume, where that is asked for.
    flows : TissueFlows or None
        What came of it.
    """

    entities: Mapping[str, str]
    images: Mapping[str, np.ndarray]
    mask: np.ndarray
    failed: np.ndarray
    affine: np.ndarray
    maps: Mapping[str, np.ndarray]
    sds: Mapping[str, np.ndarray]
    signals: Signals | None = None
    estimator: str = ""
    calibration_sd: float = 0.0
    common: Mapping[str, float] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    data: Data | None = None
    flows: TissueFlows | None = None

    @property
    def title(self) -> str:
        """The entities as in file names."""
        return title_of(self.entities)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of it.

    Attributes
    ----------
    outputs : tuple of Path
        Files, sidecars left out.
    warnings : tuple of Notice
    facts : mapping
        For the record and the report; empty where nothing was asked and there is no T1w.
    tissue : mapping of str to array, shape (X, Y, Z)
        Fractions of the T1w's tissues in the voxels of the series, where it is registered.
    registration : Registration or None
    """

    outputs: tuple[Path, ...] = ()
    warnings: tuple[Notice, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    tissue: Mapping[str, np.ndarray] = field(default_factory=dict)
    registration: Registration | None = None


class FaultsAsWarnings:
    """Turns an error of the data inside a block into a warning, so that the rest goes on."""

    def __init__(self, warnings: list[Notice]) -> None:
        self.warnings = warnings

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        """Take an error of the data."""
        if isinstance(error, AslAppError):
            self.warnings.append(Notice.from_error(error))
            return True
        return False
