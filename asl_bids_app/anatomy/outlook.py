"""What the anatomy of series will come to, as far as files tell before a run.

The steps of a run decide by the functions that are called here. What only the images can tell,
such as whether a series can be registered, stays open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.anatomy.atlases import AtlasSpec, UserAtlas, read_atlas
from asl_bids_app.anatomy.find import Found, check_tissue, find_anatomy
from asl_bids_app.anatomy.reach import Reach
from asl_bids_app.anatomy.regions import TISSUE_ATLAS
from asl_bids_app.anatomy.request import Request
from asl_bids_app.anatomy.routes import find_legs, mni_space_of
from asl_bids_app.anatomy.sides import pairs
from asl_bids_app.anatomy.spaces import GRIDS, NATIVE, PACKAGED, T1W, Grid, Space, grid_of
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice


@dataclass(frozen=True)
class Outlook:
    """What files tell of the anatomy of a series.

    Attributes
    ----------
    found : Found
        Its T1w.
    usable : bool
        Whether there is one with all that belongs to it.
    spaces : tuple of Space
        In which there will be maps.
    atlases : mapping of str to bool
        By which there will be tables of regions, and whether regions of the left have fellows on
        the right.
    pvc : bool
        Whether the flows of tissues will be estimated.
    warnings : tuple of Notice
        Of what will be left out, and why.
    """

    found: Found
    usable: bool
    spaces: tuple[Space, ...]
    atlases: Mapping[str, bool]
    pvc: bool
    warnings: tuple[Notice, ...]


def foresee(request: Request, series: Iterable[Mapping[str, str]]) -> list[Outlook]:
    """Tell what the anatomy of several series will come to, were each registered.

    Parameters
    ----------
    request
    series
        Entities of each.
    """
    atlases = [_read(spec, request) for spec in request.atlases]
    return [_foresee(request, entities, atlases) for entities in series]


def wanted_spaces(request: Request, *, with_t1w: bool) -> list[Space]:
    """Return the spaces in which maps are written if they can be had.

    The space of the run has its maps anyway; that there is no T1w is said elsewhere.
    """
    left_out = NATIVE if with_t1w else NATIVE | {T1W}
    return [space for space in request.spaces if space.name not in left_out]


def warn_by_m0(request: Request, place: Sequence[str] = ()) -> Notice:
    """Return the warning that the packaged template serves for want of a T1w."""
    asked = any(space.name == T1W for space in request.spaces)
    none_in_t1w = "; there are no maps in the space T1w" if asked else ""
    return Notice(
        place,
        "",
        "no T1w that can be used",
        "one for standard spaces and regions",
        f"{PACKAGED} is registered to the M0 by an affine, right within about a "
        f"centimetre{none_in_t1w}",
    )


def warn_without_flows(
    reason: str,
    place: Sequence[str] = (),
    expected: str = "a registered T1w, by which grey and white matter of a voxel are known",
) -> Notice:
    """Return the warning that flows are not corrected for partial volume, and why."""
    return Notice(place, "--pvc", reason, expected, "no partial volume correction (--pvc)")


NO_T1W: Final = "no T1w that can be used"
"""Why there are no flows of tissues without one."""
_Read = tuple[AtlasSpec, UserAtlas | None, Notice | None]


def _read(spec: AtlasSpec, request: Request) -> _Read:
    try:
        return spec, read_atlas(spec, request.atlas_places), None
    except InputError as error:
        return spec, None, Notice.from_error(error)


def _foresee(request: Request, entities: Mapping[str, str], read: Sequence[_Read]) -> Outlook:
    found = find_anatomy(request.bids_dir, request.derivatives, entities)
    warnings = [*found.warnings]
    usable = found.t1w is not None
    try:
        check_tissue(found)
    except InputError as error:
        usable = False
        warnings.append(Notice.from_error(error, "no anatomy by the T1w"))
    pvc = bool(request.pvc)
    if pvc and not usable:
        pvc = False
        warnings.append(warn_without_flows(NO_T1W))
    if not usable and not (request.spaces or request.atlases):
        return Outlook(found, usable, (), {}, pvc, tuple(warnings))
    if not usable:
        warnings.append(warn_by_m0(request))
    hub = T1W if usable else PACKAGED
    known = [] if not usable else [PACKAGED]
    to_space, from_space = known, known
    if usable and found.prepared:
        to_space, from_space = [*found.to_space], [*found.from_space]
    spaces = []
    for space in wanted_spaces(request, with_t1w=usable):
        try:
            if space.name != hub:
                find_legs(space.name, hub, to_space, request.template_dir)
            _check_grid(space, found, request)
            spaces.append(space)
        except InputError as error:
            warnings.append(Notice.from_error(error))
    reach = Reach.of(hub, to_space, from_space, request.template_dir)
    atlases = {TISSUE_ATLAS: mni_space_of(hub, from_space) is not None}
    for spec, atlas, fault in read:
        if atlas is None:
            warnings += [fault] if fault else []
            continue
        try:
            if not reach.leads_to(atlas):
                continue
            warnings += atlas.warnings
            atlases[spec.name] = bool(pairs([*atlas.names.values()]))
        except InputError as error:
            warnings.append(Notice.from_error(error))
    warnings += reach.warnings()
    return Outlook(found, usable, tuple(spaces), atlases, pvc, tuple(warnings))


def _check_grid(space: Space, found: Found, request: Request) -> None:
    """Check that something tells where the voxels of a space lie.

    Raises
    ------
    InputError
        If nothing does.
    """
    from asl_bids_app.anatomy.transforms import field_grid, read_transform

    if space.name == T1W or space.name in GRIDS:
        return
    of_field = None
    if (path := found.to_space.get(space.name)) and (grid := field_grid(read_transform(path))):
        of_field = Grid(*grid)
    grid_of(space, np.ones(3), None, request.template_dir, of_field)
