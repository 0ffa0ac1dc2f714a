"""Rigid and affine registration of volumes with SimpleITK, set up for ASL.

It serves where contrasts differ; volumes of one contrast are registered by `gauss_newton`.
Choices, all measured (`benchmarks/motion_accuracy.py`):

- The two volumes are *normalised locally* first: each voxel minus the average around it, over
  the standard deviation around it. Background suppression leaves a contrast that depends on
  the delay and, in 2D readouts, on the slice; global similarities (correlation, mutual
  information) take this for motion of up to 2 mm and 2 degrees.
- The metric is mutual information over random voxels, drawn with a fixed seed. Points on the
  grid itself favour whole-voxel shifts, because interpolating smooths.
- The optimiser's steps are millimetres; a rotation counts as the shift that it makes at the
  surface of the brain.
- One thread a registration, so that results don't depend on the machine; ITK releases
  Python's lock, so callers run volumes in parallel threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from asl_bids_app.preprocess.geometry import voxel_sizes

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

NEIGHBOURHOOD_MM: Final = 6.0
"""Standard deviation of the neighbourhood over which a volume is normalised ..."""
NEIGHBOURHOOD_VOXELS: Final = 1.0
"""... and its least, along axes of thick voxels."""
FLOOR: Final = 0.1
"""Share of the mean signal added to the local deviation: background stays dark."""
RADIUS_MM: Final = 60.0
"""Where on the head a rotation is turned into millimetres, for the optimiser's steps."""
_SCALES: Final = {
    "rigid": [RADIUS_MM**2] * 3 + [1.0] * 3,
    # A versor is the sine of half the angle.
    "similarity": [4 * RADIUS_MM**2] * 3 + [1.0] * 3 + [RADIUS_MM**2],
    "affine": [RADIUS_MM**2] * 9 + [1.0] * 3,
}
"""Squares of the mm by which a unit of each parameter moves the head's surface."""
_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


class RegistrationError(RuntimeError):
    """The volumes can't be registered; says why."""


@dataclass(frozen=True)
class Level:
    """One pass of a registration, from coarse to fine.

    Attributes
    ----------
    smooth_mm : float
        Standard deviation of the Gaussian smoothing of both volumes.
    step_mm, stop_mm : float
        First and last step of the optimiser.
    samples : int
        Voxels that the metric looks at, at most.
    """

    smooth_mm: float
    step_mm: float
    stop_mm: float
    samples: int


COARSE: Final = Level(smooth_mm=6.0, step_mm=4.0, stop_mm=0.2, samples=2000)
MIDDLE: Final = Level(smooth_mm=2.5, step_mm=1.0, stop_mm=0.02, samples=4000)
FINE: Final = Level(smooth_mm=2.5, step_mm=0.3, stop_mm=0.004, samples=8000)


def normalise(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Remove the local mean and divide by the local standard deviation.

    Parameters
    ----------
    volume : array, shape (X, Y, Z)
        Not finite counts as zero.
    affine : array, shape (4, 4)

    Returns
    -------
    array of float32, shape (X, Y, Z)

    Raises
    ------
    RegistrationError
        If the volume has no contrast at all.
    """
    volume = np.nan_to_num(np.asarray(volume, np.float32), posinf=0.0, neginf=0.0)
    level = float(np.abs(volume).mean(dtype=np.float64))
    if not level > 0 or float(volume.min()) == float(volume.max()):
        raise RegistrationError("a volume without any contrast")
    volume = volume / level
    sigma = np.maximum(NEIGHBOURHOOD_MM / voxel_sizes(affine), NEIGHBOURHOOD_VOXELS)
    mean = ndimage.gaussian_filter(volume, sigma, truncate=3.0)
    variance = ndimage.gaussian_filter(volume * volume, sigma, truncate=3.0) - mean * mean
    return (volume - mean) / (np.sqrt(np.maximum(variance, 0.0)) + FLOOR)


def smooth(volume: np.ndarray, affine: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Smooth by a Gaussian of a standard deviation in mm."""
    return ndimage.gaussian_filter(volume, sigma_mm / voxel_sizes(affine), truncate=3.0)


def register(
    fixed: np.ndarray,
    fixed_affine: np.ndarray,
    moving: np.ndarray,
    moving_affine: np.ndarray,
    *,
    mask: np.ndarray,
    start: np.ndarray | None = None,
    levels: tuple[Level, ...] = (COARSE, MIDDLE, FINE),
    kind: str = "rigid",
    metric: str = "information",
    smooth_slopes: bool = True,
) -> np.ndarray:
    """Find the transform that lays one volume on another.

    Volumes come as they are to be compared: `normalise` them first where contrasts differ.

    Parameters
    ----------
    fixed, moving : array, shape (X, Y, Z) and (X', Y', Z')
    fixed_affine, moving_affine : array, shape (4, 4)
    mask : array of bool, shape (X, Y, Z)
        The voxels of `fixed` that are compared.
    start : array, shape (4, 4)
        First guess; by default the scanner's coordinates.
    levels
        Passes from coarse to fine.
    kind
        ``rigid``, ``similarity`` (rigid, and one scale) or ``affine``.
    metric
        ``information`` (Mattes), ``squares`` (mean square) or ``correlation``.
    smooth_slopes
        Take the slopes of the moving volume from an image of them, smoothed once more, which is
        made for all of its voxels; else between neighbours, at the samples only. Levels that
        smooth the volumes anyhow need no more of it.

    Returns
    -------
    array, shape (4, 4)
        Takes world points (mm, RAS) of `fixed` to those of `moving`.

    Raises
    ------
    RegistrationError
        If the volumes don't overlap or the optimiser fails.
    """
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    if not mask.any():
        raise RegistrationError("an empty mask")
    points = np.argwhere(mask).mean(axis=0)
    centre = (np.asarray(fixed_affine) @ [*points, 1.0])[:3]
    transform = _transform(np.eye(4) if start is None else start, centre, kind)
    mask_image = sitk.Cast(to_image(mask, fixed_affine), sitk.sitkUInt8)
    for level in levels:
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        if metric == "squares":
            method.SetMetricAsMeanSquares()
        elif metric == "correlation":
            method.SetMetricAsCorrelation()
        else:
            method.SetMetricAsMattesMutualInformation(32)
        share = level.samples / int(mask.sum())
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, seed=1)
        method.SetMetricFixedMask(mask_image)
        method.SetMetricUseMovingImageGradientFilter(smooth_slopes)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=level.step_mm,
            minStep=level.stop_mm,
            numberOfIterations=200,
            relaxationFactor=0.5,
            gradientMagnitudeTolerance=1e-10,
            estimateLearningRate=method.Never,
        )
        method.SetOptimizerScales(_SCALES[kind])
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(
                to_image(smooth(fixed, fixed_affine, level.smooth_mm), fixed_affine),
                to_image(smooth(moving, moving_affine, level.smooth_mm), moving_affine),
            )
        except RuntimeError as error:
            # Without the addresses of ITK's objects, which differ from run to run.
            last = re.sub(r"\(0x[0-9a-f]+\)", "", str(error).strip().splitlines()[-1])
            raise RegistrationError(f"volumes that don't register ({last})") from error
    return _matrix(transform)


def to_image(volume: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Turn an array with its affine into an ITK image (ITK's world is LPS)."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    volume = np.asarray(volume)
    dtype = np.uint8 if volume.dtype == bool else np.float32
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.astype(dtype).transpose(2, 1, 0)))
    lps = _LPS @ affine
    sizes = voxel_sizes(affine)
    image.SetSpacing(sizes.tolist())
    # ITK wants an orthonormal direction; NIfTI headers are rounded, and a few are sheared.
    left, _, right = np.linalg.svd(lps[:3, :3] / sizes)
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _transform(start: np.ndarray, centre: np.ndarray, kind: str) -> sitk.Transform:
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    lps = _LPS @ start @ _LPS
    middle = _LPS[:3, :3] @ centre
    linear = lps[:3, :3]
    if kind == "affine":
        transform = sitk.AffineTransform(3)
    else:
        # What a rigid transform or a similarity can hold of the start.
        left, stretch, right = np.linalg.svd(linear)
        linear = left @ right
        transform = sitk.Euler3DTransform()
        if kind == "similarity":
            transform = sitk.Similarity3DTransform()
            linear = linear * stretch.mean()
    transform.SetCenter(middle.tolist())
    transform.SetMatrix(linear.ravel().tolist())
    transform.SetTranslation((lps[:3, :3] @ middle + lps[:3, 3] - middle).tolist())
    return transform


def _matrix(transform: sitk.Transform) -> np.ndarray:
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - linear @ centre
    return _LPS @ matrix @ _LPS
