"""One ASL run as understood from its files, before any image data is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.bids.encoding import Encoding
from asl_bids_app.bids.scaling import M0Factor
from asl_bids_app.notices import Notice
from asl_bids_app.schemes import Scheme


class M0Kind(StrEnum):
    """Where the equilibrium magnetisation comes from (the `M0Type` of the sidecar)."""

    SEPARATE = "Separate"
    INCLUDED = "Included"
    ESTIMATE = "Estimate"
    ABSENT = "Absent"


@dataclass(frozen=True)
class M0Input:
    """The M0 of a run.

    Attributes
    ----------
    kind : M0Kind
    path : Path or None
        The m0scan image of `M0Kind.SEPARATE`.
    repetition_time : tuple of float
        Seconds, one for each M0 volume (for `ABSENT`, the one of the control volumes); empty
        for `ESTIMATE`.
    estimate : float or None
        M0 of *blood* (`M0Estimate`), in the units of the image.
    factor : M0Factor or None
        What undoes a difference in scale that the sidecars tell.
    echo_time : float or None
        Of a separate M0, seconds; None where the run's holds or nothing is known.
    """

    kind: M0Kind
    path: Path | None
    repetition_time: tuple[float, ...]
    estimate: float | None = None
    factor: M0Factor | None = None
    echo_time: float | None = None


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One ASL run as understood from its files.

    Attributes
    ----------
    path : Path
        The `_asl.nii[.gz]` file.
    sidecar : str
        Name of the JSON file that messages cite.
    entities : mapping
        BIDS entities in file-name order, e.g. ``{"sub": "01", "acq": "pcasl"}``.
    metadata : mapping
        Sidecar with the inheritance principle applied.
    scheme : Scheme
    volume_types : tuple of str
        One for each volume, from `aslcontext.tsv`.
    post_labeling_delay, label_duration : array, shape (n_volumes,)
        Seconds; NaN at volumes that are neither control, label nor deltam. The duration is
        the label duration (PCASL, CASL) or the bolus duration (PASL, VSASL; inf uncut).
    slice_time : array, shape (n_slices,)
        Seconds after the first slice, by slice index; zeros for a 3D readout.
    slice_axis : int
        0, 1 or 2.
    m0 : M0Input
    warnings : tuple of Notice
        Whole lines for log, sidecar and report.
    inferred : mapping of str to str
        Field name to a sentence, for each thing that was not read but concluded.
    encoding : Encoding or None
        How the control and label volumes of a time-encoded run are decoded; their delay and
        duration are those of the whole label then.
    """

    path: Path
    sidecar: str
    entities: Mapping[str, str]
    metadata: Mapping[str, Any]
    scheme: Scheme
    volume_types: tuple[str, ...]
    post_labeling_delay: np.ndarray
    label_duration: np.ndarray
    slice_time: np.ndarray
    slice_axis: int
    m0: M0Input
    warnings: tuple[Notice, ...] = ()
    inferred: Mapping[str, str] = field(default_factory=dict)
    encoding: Encoding | None = None

    @property
    def participant(self) -> str:
        """Participant label without ``sub-``."""
        return self.entities["sub"]


def distinct_measurements(acquisition: Acquisition) -> list[tuple[float, float, int]]:
    """Return (post-labelling delay, duration, volumes) of each measurement of a run."""
    if acquisition.encoding:
        return acquisition.encoding.measurements()
    used = [kind in {"control", "label", "deltam"} for kind in acquisition.volume_types]
    pairs = zip(
        acquisition.post_labeling_delay[used], acquisition.label_duration[used], strict=True
    )
    counts = Counter((float(delay), float(duration)) for delay, duration in pairs)
    return [(*key, counts[key]) for key in sorted(counts)]
