"""Maps of a cohort as files: which there are to average, and how the averages are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from asl_bids_app import __version__
from asl_bids_app.bids.derivatives import save_image
from asl_bids_app.bids.outputs import UNITS_ABV, UNITS_ATT, UNITS_CBF
from asl_bids_app.reports.cohort import Cohort, Row

UNITS: Final = MappingProxyType({"cbf": UNITS_CBF, "att": UNITS_ATT, "abv": UNITS_ABV})
APART: Final = frozenset({"sub", "run"})
"""Entities in which series of one map may differ; of other sessions or acquisitions there are
other maps."""
_NAME: Final = re.compile(
    r"space-(?P<space>[A-Za-z0-9]+)(?:_res-(?P<res>[A-Za-z0-9]+))?(?:_desc-(?P<desc>gm|wm))?_"
    r"(?P<suffix>cbf|att|abv)\.nii\.gz"
)
_MASK: Final = "desc-brain_mask.nii.gz"


@dataclass(frozen=True)
class Kind:
    """What maps of a cohort are of: equal ones are averaged.

    Attributes
    ----------
    entities : tuple of (str, str)
        Of the series, participant and run left out.
    space, res, desc, suffix : str
    """

    entities: tuple[tuple[str, str], ...]
    space: str
    res: str
    desc: str
    suffix: str

    def name(self, stat: str) -> str:
        """Return the file's name for a statistic."""
        parts = [f"{key}-{value}" for key, value in self.entities]
        parts += [f"space-{self.space}", *([f"res-{self.res}"] if self.res else [])]
        parts += [f"stat-{stat}", *([f"desc-{self.desc}"] if self.desc else [])]
        return "_".join(["group", *parts, self.suffix]) + ".nii.gz"

    @property
    def order(self) -> tuple[Any, ...]:
        """Where it stands among others: CBF first, then ATT."""
        return self.entities, self.space, self.res, [*UNITS].index(self.suffix), self.desc

    @property
    def title(self) -> str:
        """In words, for a page."""
        where = f" in {self.space}" + (f" (res-{self.res})" if self.res else "")
        what = f"{self.desc.upper()} " if self.desc else ""
        of = ", ".join(f"{key}-{value}" for key, value in self.entities)
        return f"{what}{self.suffix.upper()}{where}" + (f", {of}" if of else "")


@dataclass(frozen=True, eq=False)
class GroupMap:
    """The maps of one kind over a cohort.

    Attributes
    ----------
    kind : Kind
    mean, sd : array, shape (X, Y, Z)
        0 where there are too few participants.
    count : array of int, shape (X, Y, Z)
        Participants with a value.
    affine : array, shape (4, 4)
    participants : int
    sources : tuple of str
        The maps that were averaged, from the root of the derivatives.
    left_out : mapping of str to str
        Series that are not in it, and why.
    """

    kind: Kind
    mean: np.ndarray
    sd: np.ndarray
    count: np.ndarray
    affine: np.ndarray
    participants: int
    sources: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A map that can be averaged.

    Attributes
    ----------
    row : Row
        Its series.
    path, mask : Path
        The map, and the brain mask beside it, which need not exist.
    """

    row: Row
    path: Path
    mask: Path


def find_maps(cohort: Cohort) -> dict[Kind, list[Source]]:
    """Return the maps in standard spaces by their kind."""
    found: dict[Kind, list[Source]] = {}
    for row in cohort.rows:
        begin = f"{row.title}_"
        entities = tuple((k, v) for k, v in row.entities.items() if k not in APART)
        for path in sorted(row.folder.glob("*_space-*.nii.gz")):
            match = _NAME.fullmatch(path.name.removeprefix(begin))
            if not path.name.startswith(begin) or match is None or match["space"] == "T1w":
                continue
            kind = Kind(
                entities, match["space"], match["res"] or "", match["desc"] or "", match["suffix"]
            )
            where = f"space-{kind.space}" + (f"_res-{kind.res}" if kind.res else "")
            mask = path.with_name(f"{begin}{where}_{_MASK}")
            found.setdefault(kind, []).append(Source(row, path, mask))
    return found


def write_group_map(output_dir: Path, found: GroupMap) -> list[Path]:
    """Write mean, standard deviation and count of a kind of maps.

    Returns
    -------
    list of Path
        ``group_..._stat-mean_...``, ``_stat-std_...`` and ``_stat-count_...``.
    """
    kind, units = found.kind, UNITS[found.kind.suffix]
    about: dict[str, Any] = {
        "SpatialReference": kind.space,
        "Participants": found.participants,
        "Sources": [f"bids::{path}" for path in found.sources],
        "LeftOut": dict(found.left_out),
        "Runs": "the runs of a participant are averaged first",
        "SoftwareVersion": f"asl-bids-app {__version__}",
    }
    what = kind.suffix.upper()
    images = {
        "mean": (found.mean, units, f"Mean {what} over participants."),
        "std": (
            found.sd,
            units,
            f"Standard deviation of {what} between participants (n - 1); 0 where fewer than two "
            "have a value. Not the standard deviation by noise, which is desc-std.",
        ),
        "count": (found.count, "participants", f"Participants with a value of {what}."),
    }
    written = []
    for stat, (data, unit, description) in images.items():
        path = output_dir / kind.name(stat)
        sidecar = {"Units": unit, "Description": description, **about}
        save_image(path, data, found.affine, kind.space, sidecar)
        written.append(path)
    return written
