"""Tissue priors in the space of a run, from derivatives or from the packaged atlas."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.bids.files import parse_name
from asl_bids_app.notices import Notice
from asl_bids_app.origins import FractionKind, TissueKind
from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.preprocess.prepare import PreparedRun

LOG = logging.getLogger("asl-app")
LEAST_AGREEMENT = 0.85
"""Given tissue maps that hold less of the brain lie elsewhere: a head 15 mm off has 0.85."""


def _find_native(
    derivatives: Mapping[str, Path], entities: Mapping[str, str], pattern: str
) -> list[Path]:
    """Find files of a participant's own space, not of a standard one; the best first.

    The head lies elsewhere in another session: only those of the session count, or of none.
    """
    session = entities.get("ses")
    found = [
        path
        for folder in derivatives.values()
        for path in sorted((folder / f"sub-{entities['sub']}").glob(f"**/{pattern}"))
        if "_space-" not in path.name or "_space-T1w" in path.name
    ]

    def session_of(path: Path) -> str | None:
        return parse_name(path.name).entities.get("ses")

    usable = [path for path in found if session is None or session_of(path) in {session, None}]
    if found and not usable:
        LOG.warning(
            "%s: found %s of sessions %s only, expected ses-%s or none; not used unregistered",
            found[0].parent,
            pattern.strip("*"),
            ", ".join(sorted({str(session_of(path)) for path in found})),
            session,
        )
    return sorted(usable, key=lambda p: (session_of(p) != session, p.parent.name != "anat"))


def given_tissue(derivatives: Mapping[str, Path], entities: Mapping[str, str]) -> dict[str, str]:
    """Return tissue maps of derivatives in the space of the participant's own anatomy.

    Looks for ``label-{GM,WM,CSF}_probseg`` without a standard space, as fMRIPrep and sMRIPrep
    write them; they count only if all three are there.
    """
    found = {
        label.lower(): paths[0]
        for label in ("GM", "WM", "CSF")
        if (paths := _find_native(derivatives, entities, f"*label-{label}_probseg.nii*"))
    }
    return {key: str(path) for key, path in found.items()} if len(found) == 3 else {}


def given_mask(derivatives: Mapping[str, Path], entities: Mapping[str, str]) -> Path | None:
    """Return a brain mask of derivatives in the participant's own space, or None."""
    found = _find_native(derivatives, entities, "*desc-brain_mask.nii*")
    return found[0] if found else None


@dataclass(frozen=True, eq=False)
class TissueMaps:
    """Tissue priors in the space of a run.

    Attributes
    ----------
    maps : mapping of str to array, shape (X, Y, Z)
        Probabilities by key (gm, wm, csf); empty if there are none to be had.
    facts : mapping
        Where they come from, for sidecars and records.
    warnings : tuple of Notice
    classes : mapping of str to array, shape (X, Y, Z)
        Without `maps`: the two largest classes of the M0's contrast, as if they were gm and wm.
    matrix : array, shape (4, 4), or None
        Takes world points of the run to MNI152 millimetres, where the atlas was laid on its M0.
    sources : tuple of Path
        Files that they come from.
    """

    maps: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    warnings: tuple[Notice, ...] = ()
    classes: Mapping[str, np.ndarray] = field(default_factory=dict)
    matrix: np.ndarray | None = None
    sources: tuple[Path, ...] = ()

    @property
    def alike(self) -> Mapping[str, np.ndarray]:
        """Maps of what belongs together, for the correction of means: tissues, else classes."""
        return self.maps or self.classes


def find_tissue(prepared: PreparedRun, given: Mapping[str, Path]) -> TissueMaps:
    """Bring tissue priors into the space of a run.

    Where the atlas can't be registered they are left out with a warning.

    Parameters
    ----------
    prepared
        The run.
    given
        Of derivatives, by key (gm, wm, csf); without them the packaged atlas is registered.
    """
    from asl_bids_app.preprocess.registration import RegistrationError
    from asl_bids_app.preprocess.tissue import LEAST_LIKENESS, tissue_priors

    if given:
        return _resample_given(prepared, given)
    try:
        tissue = tissue_priors(prepared.m0, prepared.affine, prepared.mask)
    except (RegistrationError, ValueError) as error:
        return _without_maps(str(error))
    facts = {
        "kind": TissueKind.ATLAS.value,
        "source": "MNI152 atlas, registered affinely to the M0",
        "likeness": round(tissue.likeness, 3),
    }
    if tissue.likeness < LEAST_LIKENESS:
        return _without_maps(
            f"the MNI152 atlas, registered affinely to the M0, doesn't fit: correlation "
            f"{tissue.likeness:.2f}, expected {LEAST_LIKENESS:g} or more",
            facts,
        )
    return TissueMaps(
        {"gm": tissue.gm, "wm": tissue.wm, "csf": tissue.csf},
        facts,
        tissue.warnings,
        matrix=tissue.matrix,
    )


def of_t1w(
    fractions: Mapping[str, np.ndarray], facts: Mapping[str, Any], sources: tuple[Path, ...] = ()
) -> TissueMaps:
    """Return the tissue of a T1w to which the run is registered.

    Parameters
    ----------
    fractions : mapping of str to array, shape (X, Y, Z)
        Of gm, wm and csf in the voxels of the run, zero outside its mask.
    facts
        How it was registered.
    sources
        Files of the T1w and of the registration.
    """
    about = {"kind": TissueKind.T1W.value, "fractions": FractionKind.T1W.value, **facts}
    return TissueMaps(dict(fractions), about, sources=sources)


def _resample_given(prepared: PreparedRun, given: Mapping[str, Path]) -> TissueMaps:
    """Lay tissue maps of derivatives on a run by the scanner's coordinates."""
    from asl_bids_app.bids.images import load
    from asl_bids_app.preprocess.find_mask import place
    from asl_bids_app.preprocess.tissue import resample_to

    maps, warnings, whole = {}, [], np.zeros(prepared.mask.shape)
    for key, path in given.items():
        image = load(path, ndim=3, name=path.name)
        shape = prepared.mask.shape
        affine, notes = place(
            image.data.shape, image.affine, image.oriented, path.name, shape, prepared
        )
        part = np.clip(resample_to(image.data, affine, shape, prepared.affine), 0, 1)
        whole += part
        maps[key] = part.astype(np.float32) * prepared.mask
        warnings += [*image.warnings, *notes]
    names = ", ".join(path.name for path in given.values())
    facts = {
        "kind": TissueKind.DERIVATIVES.value,
        "source": f"{names}, by the scanner's coordinates",
    }
    fit = float((whole[prepared.shown_brain] > 0.5).mean())
    if fit < LEAST_AGREEMENT:
        reason = (
            f"{names} hold tissue in {fit:.0%} of the brain mask, expected {LEAST_AGREEMENT:.0%} "
            "or more: another session, or a wrong or missing orientation"
        )
        return _without_maps(reason, facts, tuple(warnings))
    return TissueMaps(maps, facts, tuple(warnings), sources=tuple(given.values()))


def _without_maps(
    reason: str, facts: Mapping[str, Any] | None = None, warnings: tuple[Notice, ...] = ()
) -> TissueMaps:
    """Return that there are no tissue maps: what rests on them is n/a, and why."""
    found = f"no tissue maps, and n/a in the metrics by tissue: {reason}"
    warning = Notice((), "tissue", found)
    none = {"kind": TissueKind.NONE.value, "source": "none", "reason": reason}
    return TissueMaps({}, {**(facts or {}), **none}, (*warnings, warning))


def sharpen(prepared: PreparedRun, tissue: TissueMaps, *, given: bool) -> TissueMaps:
    """Let the M0 say how much of each tissue a voxel holds, where the atlas says what is likely.

    Parameters
    ----------
    prepared
        The run.
    tissue
        Its tissue maps.
    given
        They are of derivatives: made from a T1w image they are better than the M0, and stay.

    Returns
    -------
    TissueMaps
        With ``fractions`` among its facts; where no atlas fits, with classes of the M0's contrast.
    """
    if not tissue.maps:
        return _by_contrast(prepared, tissue)
    if given:
        return replace(tissue, facts={**tissue.facts, "fractions": FractionKind.DERIVATIVES.value})
    from asl_bids_app.preprocess.fractions import tissue_fractions

    found = tissue_fractions(
        prepared.m0, prepared.mask, tissue.maps, np.asarray(voxel_sizes(prepared.affine))
    )
    facts = {
        **tissue.facts,
        "fractions": (FractionKind.M0 if found.from_m0 else FractionKind.ATLAS).value,
        "contrast": found.contrast,
        "fractions_likeness": found.likeness,
    }
    return replace(tissue, maps={"gm": found.gm, "wm": found.wm, "csf": found.csf}, facts=facts)


def _by_contrast(prepared: PreparedRun, tissue: TissueMaps) -> TissueMaps:
    """Return tissue maps that are missing with what the M0's contrast alone tells apart."""
    from asl_bids_app.preprocess.contrast import contrast_classes

    found = contrast_classes(prepared.m0, prepared.mask, np.asarray(voxel_sizes(prepared.affine)))
    if found is None:
        return tissue
    facts = {**tissue.facts, "fractions": FractionKind.CONTRAST.value}
    return replace(tissue, facts=facts, classes=dict(zip(("gm", "wm"), found, strict=True)))
