"""One series laid on its T1w, or on the packaged template where there is no T1w."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from asl_bids_app.anatomy.series_work import Work
from asl_bids_app.anatomy.spaces import PACKAGED, T1W
from asl_bids_app.notices import Notice
from asl_bids_app.origins import AnatomyKind

if TYPE_CHECKING:
    from asl_bids_app.anatomy.head import Anatomy
    from asl_bids_app.anatomy.routes import Routes


def lay_on_t1w(work: Work, anatomy: Anatomy) -> Routes | None:
    """Register the series to its T1w; None where the pose isn't believed."""
    from asl_bids_app.anatomy.agreement import agreement
    from asl_bids_app.anatomy.pose_files import fractions, pose_file, write_pose
    from asl_bids_app.anatomy.register import register_asl
    from asl_bids_app.anatomy.routes import Routes
    from asl_bids_app.anatomy.views import REGISTRATION, registration_views

    unit, head = work.unit, anatomy.head
    if work.placed is not None and work.placed.registration is not None:
        found = work.placed.registration
    else:
        work.tell("ASL to T1w")
        found = register_asl(unit.images, unit.mask, unit.affine, head)
    work.registration = found
    # Of a doubtful pose the fit has kept away, see `place`.
    doubt = "the tissue of the T1w is not used by the fit" if work.placed else ""
    place = "".join(work.place)
    work.warnings += [warning.about(place).with_outcome(doubt) for warning in found.warnings]
    work.facts["registration"] = {
        **found.facts,
        **agreement(unit, head, found.matrix),
        "registered": found.registered,
    }
    if unit.mask.any() and head.brain.any():
        work.keep_slices(REGISTRATION, lambda: registration_views(unit, head, found.matrix))
    if not found.registered:
        work.facts["registration"]["reason"] = found.reason
        words = f"not registered to the T1w, and only in the space of the run: {found.reason}"
        work.warnings.append(Notice(work.place, found=words))
        return None
    work.outputs += write_pose(work.folder, unit, found.matrix, head)
    work.tissue = fractions(head, found.matrix, unit.mask.shape, unit.affine)
    # From here on all that is made rests on the T1w, too.
    work.unit = work.resting_on([*anatomy.files, pose_file(work.folder, unit.entities)])
    return Routes(
        found.matrix,
        T1W,
        anatomy.to_space,
        anatomy.from_space,
        work.request.template_dir,
        anatomy.files_to,
        anatomy.files_from,
    )


def lay_by_m0(work: Work) -> Routes | None:
    """Register the packaged template to the M0 by an affine, for want of a T1w."""
    from asl_bids_app.anatomy.outlook import warn_by_m0
    from asl_bids_app.anatomy.routes import Routes
    from asl_bids_app.anatomy.views import (
        REGISTRATION,
        TEMPLATE,
        registration_views,
        template_head,
    )
    from asl_bids_app.preprocess.registration import RegistrationError
    from asl_bids_app.preprocess.tissue import LEAST_LIKENESS, tissue_priors

    unit = work.unit
    try:
        laid = tissue_priors(unit.images["M0"], unit.affine, unit.mask)
    except (RegistrationError, ValueError, KeyError) as error:
        words = f"no T1w, and no anatomy by the M0: {error}"
        work.warnings.append(Notice(work.place, found=words))
        return None
    registered = laid.likeness >= LEAST_LIKENESS
    work.facts |= {
        "kind": AnatomyKind.TEMPLATE.value,
        "source": f"{PACKAGED}, registered affinely to the M0 (no T1w)",
        "likeness": round(laid.likeness, 3),
        "registration": {"registered": registered, "image": "M0"},
    }
    work.keep_slices(
        REGISTRATION,
        lambda: registration_views(unit, template_head(), laid.matrix, base=TEMPLATE),
    )
    if not registered:
        words = (
            f"not registered to {PACKAGED}: found a correlation of {laid.likeness:.2f} with "
            f"the M0, expected {LEAST_LIKENESS:g} or more"
        )
        work.warnings.append(Notice(work.place, found=words))
        return None
    work.warnings.append(warn_by_m0(work.request, work.place))
    work.tissue = {key: getattr(laid, key) for key in ("gm", "wm", "csf")}
    return Routes(laid.matrix, PACKAGED, template_dir=work.request.template_dir)


def keep_template_slices(work: Work, routes: Routes, anatomy: Anatomy) -> None:
    """Keep slices of the template with the T1w on it, in the first MNI152 space there is."""
    from asl_bids_app.anatomy.views import TEMPLATE, template_views

    asked = [space.name for space in work.request.spaces]
    known = [space for space in anatomy.to_space if space.startswith("MNI152")]
    known.sort(key=lambda space: (space not in asked, space != PACKAGED))
    for space in known[:1]:
        make = partial(template_views, work.unit, anatomy.head, space, routes)
        work.keep_slices(TEMPLATE, make)
