"""The head of a participant: read from derivatives, or made from a raw T1w once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.anatomy.find import Found, check_tissue
from asl_bids_app.anatomy.records import TISSUES, Head
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.geometry import same_grid

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

LEAST_TISSUE: Final = 0.3
"""Part of a given brain that its tissue maps must fill."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head with its ways to standard spaces.

    Attributes
    ----------
    head : Head
    to_space, from_space : mapping of str to transform
        ``from-T1w_to-<space>`` and back, by space.
    outputs : tuple of Path
        Files that were written for it.
    files : tuple of Path
        What the head rests on: the T1w, its brain and tissues.
    files_to, files_from : mapping of str to Path
        The files of `to_space` and `from_space`.
    """

    head: Head
    to_space: Mapping[str, sitk.Transform]
    from_space: Mapping[str, sitk.Transform]
    outputs: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    files_to: Mapping[str, Path] = field(default_factory=dict)
    files_from: Mapping[str, Path] = field(default_factory=dict)


def read_given(found: Found) -> Anatomy:
    """Read the head and the transforms of derivatives.

    Raises
    ------
    InputError
        If a file is broken, or what belongs together doesn't fit.
    ValueError
        If there is no T1w.
    """
    from asl_bids_app.anatomy.transforms import read_transform
    from asl_bids_app.bids.images import load

    if found.t1w is None:
        raise ValueError("no T1w to read")
    check_tissue(found)
    name = found.t1w.name
    t1w = load(found.t1w, ndim=3, name=name)
    shape, warnings = t1w.data.shape, list(t1w.warnings)

    def load_on_grid(path: Path) -> np.ndarray:
        image = load(path, ndim=3, name=path.name)
        if not same_grid(image.data.shape, image.affine, shape, t1w.affine):
            raise InputError(
                path.name,
                "grid",
                f"{' x '.join(map(str, image.data.shape))} voxels elsewhere",
                f"the grid of {name}",
            )
        return image.data

    brain = load_on_grid(found.mask) > 0.5 if found.mask else None
    if found.tissue:
        maps = [np.clip(load_on_grid(found.tissue[key]), 0, 1) for key in TISSUES]
        how = "probseg"
    else:
        assert found.dseg is not None, "checked above"
        labels = np.rint(load_on_grid(found.dseg))
        # The labels of BIDS derivatives: 1 grey matter, 2 white matter, 3 CSF.
        maps = [(labels == k).astype(np.float32) for k in (1, 2, 3)]
        how = "dseg"
    if brain is None:
        brain = sum(maps) > 0.5
    gm, wm, csf = (m * brain for m in maps)
    filled = float((gm + wm + csf)[brain].mean()) if brain.any() else 0.0
    if filled < LEAST_TISSUE:
        raise InputError(
            name,
            "tissue",
            f"tissue maps that fill {filled:.0%} of the brain mask",
            f"{LEAST_TISSUE:.0%} or more",
        )
    facts = {"source": found.source, "tissue": how}
    head = Head(t1w.data, t1w.affine, brain, gm, wm, csf, facts, tuple(warnings))
    there: dict[str, Any] = {}
    back: dict[str, Any] = {}
    unread: list[Notice] = []
    for target, paths in ((there, found.to_space), (back, found.from_space)):
        for space, path in paths.items():
            try:
                target[space] = read_transform(path)
            except InputError as error:
                unread.append(Notice.from_error(error))
    head = replace(head, warnings=(*head.warnings, *unread))
    return Anatomy(
        head,
        there,
        back,
        files=found.files,
        files_to={space: found.to_space[space] for space in there},
        files_from={space: found.from_space[space] for space in back},
    )
