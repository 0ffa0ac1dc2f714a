"""Transforms between images as SimpleITK has them, and as the field's programs exchange them.

A file ``from-A_to-B_mode-image_xfm`` brings an image from A to B, so it takes points of B to
points of A. ITK's world is LPS; everywhere else here it is RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from asl_bids_app.anatomy.records import Normalisation
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess.geometry import voxel_sizes

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_transform(points: np.ndarray) -> sitk.Transform:
    """Return a matrix that takes points to points (mm, RAS, 4 x 4) as an ITK transform."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    lps = _LPS @ points @ _LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def field_transform(displacement: np.ndarray, affine: np.ndarray) -> sitk.Transform:
    """Return a displacement (X, Y, Z, 3) in mm (RAS) on a grid as an ITK transform."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    lps = np.asarray(displacement, float) * [-1.0, -1.0, 1.0]
    image = sitk.GetImageFromArray(np.ascontiguousarray(lps.transpose(2, 1, 0, 3)), isVector=True)
    place_grid(image, affine)
    return sitk.DisplacementFieldTransform(image)


def place_grid(image: sitk.Image, affine: np.ndarray) -> None:
    """Give an ITK image the place that a NIfTI affine says."""
    lps, sizes = _LPS @ affine, voxel_sizes(affine)
    left, _, right = np.linalg.svd(lps[:3, :3] / sizes)
    image.SetSpacing(sizes.tolist())
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())


def chain(parts: Sequence[sitk.Transform]) -> sitk.Transform:
    """Return one transform that applies the first of several first."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    # ITK applies what was added last first.
    whole = sitk.CompositeTransform(list(reversed(parts)))
    whole.FlattenTransform()
    return whole


def to_and_from_template(
    found: Normalisation, affine: np.ndarray
) -> tuple[sitk.Transform, sitk.Transform]:
    """Return ``from-T1w_to-template`` and ``from-template_to-T1w`` of the app's own path.

    Parameters
    ----------
    found
        How the head lies to the template.
    affine : array, shape (4, 4)
        Of the template's grid.
    """
    there, back = affine_transform(found.matrix), affine_transform(np.linalg.inv(found.matrix))
    if found.displacement is None or found.back is None:
        return there, back
    out = field_transform(found.displacement, affine)
    return chain([out, there]), chain([back, field_transform(found.back, affine)])


def read_transform(path: Path) -> sitk.Transform:
    """Read an ITK transform.

    Raises
    ------
    InputError
        If the file can't be read as one.
    """
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            path, "", f"no transform that ITK reads ({last})", "an ITK transform (.txt, .h5)"
        ) from error


def write_transform(path: Path, transform: sitk.Transform) -> None:
    """Write an ITK transform, whole or not at all."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    from asl_bids_app.bids.derivatives import write_whole

    with write_whole(path) as beside:
        sitk.WriteTransform(transform, str(beside))


def move_points(
    transform: sitk.Transform, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Return where a transform takes the voxels of a grid.

    Parameters
    ----------
    transform
    shape, affine
        The grid.

    Returns
    -------
    array of float32, shape (X, Y, Z, 3)
        World points, mm, RAS.
    """
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    grid = sitk.Image([int(n) for n in shape], sitk.sitkUInt8)
    place_grid(grid, affine)
    field = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        grid.GetSize(),
        grid.GetOrigin(),
        grid.GetSpacing(),
        grid.GetDirection(),
    )
    moved = sitk.GetArrayViewFromImage(field).transpose(2, 1, 0, 3).astype(np.float32)
    moved *= np.array([-1, -1, 1], np.float32)
    index = [np.arange(n, dtype=np.float32) for n in shape]
    for k in range(3):
        row = np.asarray(affine, np.float32)[k]
        moved[..., k] += (
            row[0] * index[0][:, None, None]
            + row[1] * index[1][None, :, None]
            + row[2] * index[2][None, None, :]
            + row[3]
        )
    return moved


def field_grid(transform: sitk.Transform) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Return the grid (shape, affine) of the field of a transform, or None without a field."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    parts = [transform]
    if transform.GetName() == "CompositeTransform":
        composite = sitk.CompositeTransform(transform)
        parts = [composite.GetNthTransform(i) for i in range(composite.GetNumberOfTransforms())]
    for part in reversed(parts):
        if part.GetName() == "DisplacementFieldTransform":
            field = sitk.DisplacementFieldTransform(part).GetDisplacementField()
            affine = np.eye(4)
            direction = np.array(field.GetDirection()).reshape(3, 3)
            affine[:3, :3] = direction * np.array(field.GetSpacing())
            affine[:3, 3] = field.GetOrigin()
            return tuple(field.GetSize()), _LPS @ affine
    return None
