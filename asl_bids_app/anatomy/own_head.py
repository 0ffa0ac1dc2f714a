"""The head of a raw T1w, made once by the app's own path and kept as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_bids_app import __version__
from asl_bids_app.anatomy.head import Anatomy
from asl_bids_app.anatomy.records import TISSUES, AnatomyError, Head
from asl_bids_app.anatomy.spaces import PACKAGED
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - the library's own short name


def make_own(
    path: Path,
    folder: Path,
    stem: str,
    sidecar: Mapping[str, Any],
    tell: Callable[[str], None] = lambda _: None,
) -> Anatomy:
    """Make the head of a raw T1w, or read it if it was made before from the same file.

    Parameters
    ----------
    path
        The T1w.
    folder
        The `anat` folder of the derivatives.
    stem
        What the files' names begin with, such as ``sub-01_ses-1``.
    sidecar
        What all sidecars say.
    tell
        Takes the name of each step as it begins.

    Raises
    ------
    InputError
        If the image can't be read or shows no head.
    """
    from asl_bids_app.anatomy.t1w import understand
    from asl_bids_app.anatomy.transforms import to_and_from_template
    from asl_bids_app.atlas import load_atlas
    from asl_bids_app.bids.images import load

    stat = path.stat()
    identity = {
        "File": path.name,
        "Size": stat.st_size,
        "Modified": stat.st_mtime_ns,
        "SoftwareVersion": f"asl-bids-app {__version__}",
    }
    files = names(folder, stem)
    if (kept := _read_kept(path, files, identity)) is not None:
        return kept
    image = load(path, ndim=3, name=path.name)
    try:
        head, found = understand(image.data, image.affine, tell=tell)
    except AnatomyError as error:
        raise InputError(path.name, "", error.found, error.expected) from error
    warnings = (*image.warnings, *(w.about(path.name) for w in head.warnings))
    facts = {**head.facts, "template": PACKAGED, "normalisation": found.facts}
    head = replace(head, warnings=warnings, facts=facts)
    to_space, from_space = to_and_from_template(found, load_atlas().affine)
    content = {**sidecar, "Source": identity, "Facts": facts, "Warnings": list(warnings)}
    _write(files, head, to_space, from_space, content)
    return _own(path, head, files, (to_space, from_space))


def _own(
    path: Path,
    head: Head,
    files: Mapping[str, Path],
    transforms: tuple[sitk.Transform, sitk.Transform],
) -> Anatomy:
    """Return the app's own head of a raw T1w, with its files."""
    return Anatomy(
        head,
        {PACKAGED: transforms[0]},
        {PACKAGED: transforms[1]},
        tuple(files.values()),
        (path, *(files[key] for key in ("brain", *TISSUES))),
        {PACKAGED: files["to"]},
        {PACKAGED: files["from"]},
    )


def names(folder: Path, stem: str) -> dict[str, Path]:
    """Return the files of the app's own path by key."""
    return {
        "t1w": folder / f"{stem}_desc-preproc_T1w.nii.gz",
        "brain": folder / f"{stem}_desc-brain_mask.nii.gz",
        **{key: folder / f"{stem}_label-{key.upper()}_probseg.nii.gz" for key in TISSUES},
        "to": folder / f"{stem}_from-T1w_to-{PACKAGED}_mode-image_xfm.h5",
        "from": folder / f"{stem}_from-{PACKAGED}_to-T1w_mode-image_xfm.h5",
    }


def _write(
    files: Mapping[str, Path],
    head: Head,
    to_space: sitk.Transform,
    from_space: sitk.Transform,
    content: Mapping[str, Any],
) -> None:
    import nibabel as nib

    from asl_bids_app.anatomy.transforms import write_transform
    from asl_bids_app.bids.derivatives import sidecar_path, write_json, write_whole

    write_transform(files["to"], to_space)
    write_transform(files["from"], from_space)
    about = {
        "t1w": "T1w without its bias field",
        "brain": "Brain mask of the T1w",
        "gm": "Grey matter by T1w and atlas",
        "wm": "White matter by T1w and atlas",
        "csf": "Fluid by T1w and atlas",
    }
    # The T1w comes last: its sidecar says that all the rest is there.
    for key in (*TISSUES, "brain", "t1w"):
        data = getattr(head, key)
        kind = np.uint8 if data.dtype == bool else np.float32
        image = nib.Nifti1Image(data.astype(kind), head.affine)
        image.set_qform(head.affine, code=1)
        image.set_sform(head.affine, code=1)
        with write_whole(files[key]) as beside:
            nib.save(image, beside)
            write_json(sidecar_path(files[key]), {"Description": about[key], **content})


def _read_kept(
    path: Path, files: Mapping[str, Path], identity: Mapping[str, Any]
) -> Anatomy | None:
    """Return what an earlier run made from the same file, or None."""
    import nibabel as nib

    from asl_bids_app.anatomy.transforms import read_transform
    from asl_bids_app.bids.derivatives import sidecar_path

    if not all(path.is_file() for path in files.values()):
        return None
    try:
        content = json.loads(sidecar_path(files["t1w"]).read_text(encoding="utf-8"))
        if content.get("Source") != identity:
            return None
        images = {key: nib.load(files[key]) for key in ("t1w", "brain", *TISSUES)}
        maps = {key: image.get_fdata(dtype=np.float32) for key, image in images.items()}
        transforms = read_transform(files["to"]), read_transform(files["from"])
    except (OSError, ValueError, EOFError):
        return None
    head = Head(
        maps["t1w"],
        images["t1w"].affine,
        maps["brain"] > 0.5,
        maps["gm"],
        maps["wm"],
        maps["csf"],
        content["Facts"],
        tuple(Notice((), found=str(line)) for line in content["Warnings"]),
    )
    return _own(path, head, files, transforms)
