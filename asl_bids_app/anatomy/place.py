"""A series laid on the T1w of its participant before the fit, which looks at the T1w's tissue.

Whatever is wrong with a T1w is a line, and the run goes on as without one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_bids_app.anatomy.find import Found, find_anatomy
from asl_bids_app.anatomy.request import Request
from asl_bids_app.errors import AslAppError
from asl_bids_app.wording import title_of

if TYPE_CHECKING:
    from asl_bids_app.anatomy.head import Anatomy
    from asl_bids_app.anatomy.records import Registration

LOG = logging.getLogger("asl-app")


@dataclass(frozen=True, eq=False)
class Placed:
    """A series on its T1w.

    Attributes
    ----------
    found : Found
        The files.
    registration : Registration or None
        None where the T1w can't be used at all.
    tissue : mapping of str to array, shape (X, Y, Z)
        Fractions of the T1w's tissues (gm, wm, csf) in the voxels of the series; empty unless the
        registration is sure.
    reason : str
        Why there is no tissue, in words; empty if there is.
    sources : tuple of Path
        Files of the T1w, and the pose of the series on it.
    """

    found: Found
    registration: Registration | None = None
    tissue: Mapping[str, np.ndarray] = field(default_factory=dict)
    reason: str = ""
    sources: tuple[Path, ...] = ()

    @property
    def sure_pose(self) -> np.ndarray | None:
        """Pose of the series on the T1w (4, 4), where the registration is sure."""
        found = self.registration
        return found.matrix if found is not None and found.sure else None

    @property
    def facts(self) -> dict[str, Any]:
        """Where the tissue comes from, for sidecars and records."""
        if self.registration is None or not self.tissue:
            return {"t1w": f"not used: {self.reason}"}
        return {
            "source": f"T1w, registered: {self.found.source}",
            "registered_by": self.registration.image,
            "score": round(self.registration.score, 3),
            "expected_error_mm": round(self.registration.error_mm, 3),
        }


def place(
    request: Request,
    entities: Mapping[str, str],
    images: Mapping[str, np.ndarray],
    mask: np.ndarray,
    affine: np.ndarray,
    tell: Callable[[str], None] = lambda _: None,
) -> Placed | None:
    """Lay a series on the T1w of its participant.

    Parameters
    ----------
    request
    entities
        Of the series.
    images : mapping of str to array, shape (X, Y, Z)
        Contrasts by which it is registered, such as ``M0`` and ``ΔM``.
    mask : array of bool, shape (X, Y, Z)
        Brain.
    affine : array, shape (4, 4)
    tell
        Takes the name of each step as it begins.

    Returns
    -------
    Placed or None
        None if there is no T1w. Never an error: what fails is `Placed.reason`.
    """
    from asl_bids_app.anatomy.pose_files import fractions, pose_file
    from asl_bids_app.anatomy.register import register_asl
    from asl_bids_app.bids.derivatives import perf_folder

    found = find_anatomy(request.bids_dir, request.derivatives, entities)
    if found.t1w is None:
        return None
    try:
        anatomy = read_head(request, found, tell)
        head = anatomy.head
        tell("ASL to T1w")
        registration = register_asl(images, mask, affine, head)
        tissue = {}
        if registration.sure:
            tissue = fractions(head, registration.matrix, mask.shape, affine)
    except AslAppError as error:
        return Placed(found, reason=str(error))
    except Exception as error:
        LOG.debug("%s: T1w", found.t1w.name, exc_info=True)
        return Placed(
            found,
            reason=f"{found.t1w.name}: found {type(error).__name__} ({error}) in the anatomy, "
            "expected none",
        )
    reason = "; ".join([registration.reason, *registration.warnings]).strip("; ")
    pose = pose_file(perf_folder(request.output_dir, entities), entities)
    return Placed(found, registration, tissue, reason, (*anatomy.files, pose))


def read_head(request: Request, found: Found, tell: Callable[[str], None]) -> Anatomy:
    """Read the head of derivatives, or make that of a raw T1w, which is then kept.

    Raises
    ------
    InputError
        If the T1w, or what belongs to it, can't be used.
    """
    from asl_bids_app.anatomy.head import read_given
    from asl_bids_app.anatomy.own_head import make_own
    from asl_bids_app.bids.files import parse_name
    from asl_bids_app.bids.uris import dataset_uri

    if found.prepared or found.t1w is None:
        return read_given(found)
    name = parse_name(found.t1w.name)
    keep = {k: v for k, v in name.entities.items() if k in {"sub", "ses"}}
    stem = title_of(keep)
    folder: Path = request.output_dir / f"sub-{keep['sub']}"
    folder = folder / f"ses-{keep['ses']}" if "ses" in keep else folder
    source = {"Sources": [dataset_uri(found.t1w, request.datasets)]}
    return make_own(found.t1w, folder / "anat", stem, source, tell)
