"""Planned and prepared runs made by hand, for tests of the workflow's pure functions."""

from pathlib import Path

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition, M0Input, M0Kind
from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.calibration import CalibrationOptions, resolve
from asl_bids_app.preprocess.moved import MovedRun
from asl_bids_app.preprocess.prepare import PreparedRun
from asl_bids_app.schemes import Scheme


def planned(
    kinds=("control", "label"),
    delay=1.8,
    slice_time=(0.0,),
    slice_axis=2,
    m0=None,
    path="sub-01_asl.nii.gz",
):
    """A PCASL run of 3 T; delay is one number or one a volume."""
    n = len(kinds)
    calibration, _ = resolve(
        Scheme.PCASL, {"MagneticFieldStrength": 3.0}, CalibrationOptions(), "sub-01_asl.json"
    )
    acquisition = Acquisition(
        path=Path(path),
        sidecar="sub-01_asl.json",
        entities={"sub": "01"},
        metadata={},
        scheme=Scheme.PCASL,
        volume_types=tuple(kinds),
        post_labeling_delay=np.broadcast_to(np.asarray(delay, float), (n,)).copy(),
        label_duration=np.full(n, 1.8),
        slice_time=np.asarray(slice_time, float),
        slice_axis=slice_axis,
        m0=m0 or M0Input(M0Kind.ABSENT, None, (5.0,)),
    )
    return PlannedRun(acquisition, calibration, ())


def moved(data, affine, **changes):
    """Volumes of a run at rest."""
    inside = np.ones(data.shape[:3], bool)
    return MovedRun(data, inside, inside, affine, None, "none", **changes)


def prepared(mask, affine, delta_m=0.005, m0=1000.0, n=1, **changes):
    """A run of n measurements; delta_m and m0 are numbers or arrays."""
    images = np.broadcast_to(np.asarray(delta_m, float), (*mask.shape, n)) * mask[..., None]
    times = np.linspace(0.5, 1.8, n)
    return PreparedRun(
        images.astype(np.float32),
        (0.1 * images).astype(np.float32),
        times,
        np.full(n, 1.8),
        np.full(n, 4),
        (np.broadcast_to(m0, mask.shape) * mask).astype(np.float32),
        mask,
        affine,
        None,
        **changes,
    )


def grid(shape, zooms, centre=(0.0, 0.0, 0.0)):
    """Affine of a grid around a point, axes to the right, front and top."""
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = np.asarray(centre) - np.asarray(zooms) * (np.asarray(shape) - 1) / 2
    return affine


def world(shape, affine):
    """Places of the voxels, (X, Y, Z, 3), mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def ball(shape, affine, radius=60.0, centre=(0.0, 0.0, 0.0)):
    """A ball in space as a grid shows it."""
    return np.linalg.norm(world(shape, affine) - centre, axis=-1) < radius
