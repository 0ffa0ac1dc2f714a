"""A simulated scanner: what a run's images of a head look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.demo.cases import Run
from asl_bids_app.demo.gkm import Physics, delta_m
from asl_bids_app.demo.simulated_head import TISSUES, Head, rotation

SLICE_SECONDS: Final = 0.045
"""Time that a 2D readout takes for a slice."""


@dataclass(frozen=True)
class Grid:
    """Where the scanner measures.

    Attributes
    ----------
    shape : tuple of int
    voxel : tuple of float
        Millimetres.
    """

    shape: tuple[int, int, int]
    voxel: tuple[float, float, float]

    @property
    def affine(self) -> np.ndarray:
        """Voxel to millimetre; the first axis runs to the left, as in most converted data."""
        affine = np.diag([-self.voxel[0], self.voxel[1], self.voxel[2], 1.0])
        centre = np.array([0.0, -18.0, 8.0])  # of the brain, in MNI millimetres
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine


@dataclass(frozen=True)
class View:
    """A head as the voxels of a grid see it; arrays of the grid's shape."""

    grey: np.ndarray
    white: np.ndarray
    csf: np.ndarray
    scalp: np.ndarray
    perfusion: np.ndarray
    att: np.ndarray
    core: np.ndarray
    rim: np.ndarray

    @property
    def cbf(self) -> np.ndarray:
        """CBF in mL/100 g/min: that of the tissues by their share of the magnetisation."""
        m0 = self.magnetisation()
        return np.where(m0 > 1, self.perfusion / np.maximum(m0, 1), 0)

    def segmentation(self) -> np.ndarray:
        """Label each voxel: 0 none, 1 grey, 2 white matter, 3 CSF, 4 lesion core, 5 rim."""
        tissues = np.stack([self.grey, self.white, self.csf], axis=-1)
        labels = np.where(tissues.sum(-1) > 0.5, tissues.argmax(-1) + 1, 0).astype(np.uint8)
        labels[self.core > 0.5] = 4
        labels[self.rim > 0.5] = 5
        return labels

    def magnetisation(self, repetition_time: float = np.inf) -> np.ndarray:
        """Compute the M0 image of a repetition time (s), without receive shading."""
        return sum(
            getattr(self, name) * m0 * (1 - np.exp(-repetition_time / t1))
            for name, (m0, t1, _) in TISSUES.items()
        )

    def suppressed(self, since_first_slice: np.ndarray) -> np.ndarray:
        """Compute the static signal under background suppression, which recovers."""
        return sum(
            getattr(self, name) * m0 * (1 - (1 - left) * np.exp(-since_first_slice / t1))
            for name, (m0, t1, left) in TISSUES.items()
        )


def view(head: Head, grid: Grid, pose: np.ndarray | None = None) -> View:
    """Look at a head through a grid.

    Parameters
    ----------
    head, grid
        What is seen, and where.
    pose : array, shape (6,)
        Shift (mm) and turn (degrees, about the grid's centre) of the head; None for none.
    """
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    if pose is not None:
        centre = points.reshape(-1, 3).mean(0)
        # The inverse motion: where in the still head lies what is now at this point?
        points = (points - pose[:3] - centre) @ rotation(pose[3:]) + centre
    inverse = np.linalg.inv(head.affine)
    voxels = np.moveaxis(points @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    maps = {}
    for name in View.__annotations__:
        mode = "nearest" if name == "att" else "constant"
        maps[name] = ndimage.map_coordinates(
            getattr(head, name), voxels, order=1, mode=mode, output=np.float32
        )
    return View(**maps)


def blur(head: Head, grid: Grid) -> Head:
    """Average a head over about a voxel of the grid, before it is sampled."""
    fine = np.abs(np.diag(head.affine)[:3])
    # Readouts blur: a voxel sees a little more than its own box (0.29 of its width).
    sigma = 0.4 * np.array(grid.voxel) / fine
    blurred = {
        name: ndimage.gaussian_filter(np.asarray(getattr(head, name), np.float32), sigma)
        for name in View.__annotations__
    }
    return Head(head.affine, **blurred)


def shading(grid: Grid) -> np.ndarray:
    """Compute the receive sensitivity: brighter near the coil, at the back and the rim."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid.shape), indexing="ij")
    return 1 + 0.12 * (x**2 + y**2) - 0.1 * y + 0.05 * z + 0.04 * x


def slice_times(run: Run, grid: Grid) -> np.ndarray:
    """Return the excitation times of the slices after the first, in seconds."""
    return np.arange(grid.shape[2]) * (SLICE_SECONDS if run.two_d else 0.0)


def motion(n_volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw poses (n_volumes, 6): a slow drift, some unrest and one nod.

    The first pose is 0, and so is the mean of the others: the truth is that of the pose 0,
    whether an app takes the first volume or the mean one for its reference.
    """
    steps = rng.standard_normal((n_volumes, 6)) * (0.025, 0.025, 0.035, 0.025, 0.02, 0.02)
    poses = np.cumsum(steps, axis=0)
    poses[2 * n_volumes // 3 :] += (0.1, 0.2, 0.5, 0.6, 0.0, 0.1)
    poses -= poses[1:].mean(axis=0)
    poses[0] = 0
    return poses


def volume_order(run: Run) -> list[tuple[str, int]]:
    """Return (volume type, measurement) of every volume; the measurement of M0 is -1."""
    kinds = ["deltam"] if run.order == "deltam" else run.order.split("-")
    n = len(run.delays)
    sequence = (
        [i for i in range(n) for _ in range(run.repeats)]
        if run.blocked
        else list(range(n)) * run.repeats
    )
    volumes = [(kind, i) for i in sequence for kind in kinds]
    return [("m0scan", -1), *volumes] if run.m0_included else volumes


def label_signal(
    run: Run, seen: View, grid: Grid, measurement: int, physics: Physics
) -> np.ndarray:
    """Compute ΔM/M0 of a measurement without noise."""
    return delta_m(
        run.scheme,
        seen.cbf,
        seen.att,
        run.delays[measurement] + slice_times(run, grid),
        run.durations[measurement],
        run.effective_efficiency,
        physics,
    )


def noise_sd(run: Run, seen: View, grid: Grid, snr: float, physics: Physics) -> float:
    """Compute the noise of one volume that gives the signal-to-noise ratio asked for.

    `snr` is the mean ΔM of grey matter in the strongest measurement over the standard
    deviation of an averaged measurement (mean of `repeats` differences).
    """
    grey = seen.segmentation() == 1
    m0 = (seen.magnetisation() * shading(grid))[grey]
    peak = max(
        float((m0 * label_signal(run, seen, grid, i, physics)[grey]).mean())
        for i in range(len(run.delays))
    )
    return peak / snr / np.sqrt(2 / run.repeats)


def magnitude(signal: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add complex noise and take the magnitude (Rician)."""
    real = signal + sd * rng.standard_normal(signal.shape)
    return np.hypot(real, sd * rng.standard_normal(signal.shape)).astype(np.float32)


def acquire(
    run: Run,
    head: Head,
    grid: Grid,
    poses: np.ndarray | None,
    sd: float,
    m0_repetition_time: float,
    physics: Physics,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Make the volumes of a run, in the order of `volume_order`.

    Parameters
    ----------
    run
        What is measured.
    head
        Already averaged over the voxel (`blur`).
    grid
        Where.
    poses : array, shape (n_volumes, 6), or None
        Head motion; None for a still head.
    sd
        Noise of a volume.
    m0_repetition_time
        Seconds, of an M0 volume.
    physics
        Constants of the simulated world.
    rng
        Of the noise.
    """
    receive = shading(grid)
    recovery = np.broadcast_to(slice_times(run, grid), grid.shape)
    still = view(head, grid)
    signals: dict[int, np.ndarray] = {}
    for number, (kind, measurement) in enumerate(volume_order(run)):
        seen = still if poses is None else view(head, grid, poses[number])
        if kind == "m0scan":
            yield magnitude(seen.magnetisation(m0_repetition_time) * receive, sd, rng)
            continue
        if poses is not None or measurement not in signals:
            equilibrium = seen.magnetisation() * receive
            signals[measurement] = equilibrium * label_signal(
                run, seen, grid, measurement, physics
            )
        difference = signals[measurement]
        if kind == "deltam":
            noise = np.sqrt(2) * sd * rng.standard_normal(difference.shape)
            yield (difference + noise).astype(np.float32)
            continue
        static = seen.suppressed(recovery) if run.pulses else seen.magnetisation()
        label = difference if kind == "label" else 0
        yield magnitude(static * receive - label, sd, rng)
