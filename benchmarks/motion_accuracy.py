"""Accuracy and cost of rigid registrations on real ASL volumes moved by known amounts.

Run ``python benchmarks/motion_accuracy.py --data FOLDER`` where FOLDER is a BIDS dataset
with the run that the tests use. antspyx is compared where it is installed. ``--quick`` compares
this app with what it did until November 2026 (SimpleITK), by table 1 alone. Three tables:

1. *Known motions.* A volume is moved by a random rigid motion of up to 0.3, 1 and 3 (mm and
   degrees, the largest always along the thick slices by 2 to 3 mm) and registered to the
   average of its delay's other volumes. The error is the root mean square distance over the
   brain between the motion found and that applied, taken from where the volume was found
   before it was moved.
2. *Contrast.* The averages of the delays were acquired in turns, so they lie within
   hundredths of a millimetre of each other: what a registration finds between the shortest
   and the longest delay is its error. The M0 came just before the first volume.
3. *Effect.* What is left of the spread of the differences (control minus label), and what
   happens to their mean, which no correction should change.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel as nib
import numpy as np
from scipy import ndimage

from asl_bids_app.preprocess.aligner import FIRST, SECOND
from asl_bids_app.preprocess.gauss_newton import Views, locate
from asl_bids_app.preprocess.geometry import resample_filled, to_matrix, to_parameters
from asl_bids_app.preprocess.mask import brain_mask
from asl_bids_app.preprocess.motion import apply_motion, estimate_motion
from asl_bids_app.preprocess.registration import (
    COARSE,
    FINE,
    MIDDLE,
    normalise,
    register,
    to_image,
)
from asl_bids_app.preprocess.target import Target, make_target

Register = Callable[[np.ndarray, np.ndarray], np.ndarray]
SIZES = (0.3, 1.0, 3.0)


def methods(affine: np.ndarray, mask: np.ndarray, quick: bool = False) -> dict[str, Register]:
    """Registrations by name, each taking (fixed, moving) to a 4x4 matrix."""
    rim = ndimage.binary_dilation(mask, iterations=1)
    centre = (affine @ [*np.argwhere(rim).mean(axis=0), 1.0])[:3]
    prepared: dict[int, tuple[np.ndarray, list[Target]]] = {}

    def ours(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        # A target serves all volumes of its contrast.
        if id(fixed) not in prepared:
            targets = [
                make_target(fixed, affine, rim, centre, level) for level in (*FIRST, *SECOND)
            ]
            prepared[id(fixed)] = (fixed, targets)
        return locate(Views(moving, affine), prepared[id(fixed)][1], (np.eye(4),)).matrix

    def before(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        return register(
            normalise(fixed, affine),
            affine,
            normalise(moving, affine),
            affine,
            mask=rim,
            levels=(COARSE, MIDDLE, FINE),
        )

    found = {
        "this app (Gauss-Newton)": ours,
        "before (SimpleITK, local contrast)": before,
    }
    if quick:
        return found
    found |= {
        "SimpleITK correlation, all voxels": itk(affine, mask, "correlation", 1.0),
        "SimpleITK information, 20 %": itk(affine, mask, "information", 0.2),
        "SimpleITK squares, 20 %": itk(affine, mask, "squares", 0.2),
    }
    try:
        import ants
    except ImportError:
        print("antspyx is not installed: left out\n")
        return found
    for kind in ("Rigid", "BOLDRigid", "QuickRigid"):
        found[f"antspyx {kind}"] = with_ants(ants, affine, mask, kind)
    return found


def itk(affine: np.ndarray, mask: np.ndarray, metric: str, share: float) -> Register:
    """SimpleITK as its examples set it up, on the volumes as they are."""
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    centre = (affine @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3]

    def run(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        {
            "correlation": method.SetMetricAsCorrelation,
            "information": lambda: method.SetMetricAsMattesMutualInformation(32),
            "squares": method.SetMetricAsMeanSquares,
        }[metric]()
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, seed=1)
        method.SetMetricFixedMask(sitk.Cast(to_image(mask, affine), sitk.sitkUInt8))
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100, 0.5)
        method.SetOptimizerScalesFromPhysicalShift()
        transform = sitk.Euler3DTransform()
        transform.SetCenter((flip[:3, :3] @ centre).tolist())
        method.SetInitialTransform(transform, inPlace=True)
        method.SetShrinkFactorsPerLevel([2, 1])
        method.SetSmoothingSigmasPerLevel([2, 1])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
        method.Execute(to_image(fixed, affine), to_image(moving, affine))
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
        middle = np.array(transform.GetCenter())
        matrix[:3, 3] = np.array(transform.GetTranslation()) + middle - matrix[:3, :3] @ middle
        return flip @ matrix @ flip

    return run


def with_ants(ants: Any, affine: np.ndarray, mask: np.ndarray, kind: str) -> Register:
    """One of antspyx's named registrations."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps = flip @ affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)

    def image(volume: np.ndarray) -> Any:
        return ants.from_numpy(
            volume.astype(np.float32),
            origin=lps[:3, 3].tolist(),
            spacing=sizes.tolist(),
            direction=lps[:3, :3] / sizes,
        )

    def run(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        # antspyx keeps transforms in files.
        result = ants.registration(
            image(fixed), image(moving), kind, mask=image(mask), random_seed=1
        )
        transform = ants.read_transform(result["fwdtransforms"][0])
        linear = np.array(transform.parameters[:9]).reshape(3, 3)
        middle = np.array(transform.fixed_parameters[:3])
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        matrix[:3, 3] = np.array(transform.parameters[9:]) + middle - linear @ middle
        for name in {*result["fwdtransforms"], *result["invtransforms"]}:
            Path(name).unlink(missing_ok=True)
        return flip @ matrix @ flip

    return run


class Study:
    """The run, its motion as the app finds it, and the averages of its delays."""

    def __init__(self, folder: Path, threads: int) -> None:
        stem = folder / "sub-01" / "perf" / "sub-01_acq-pcasl2depi_asl"
        image = nib.load(f"{stem}.nii.gz")
        self.data, self.affine = image.get_fdata(dtype=np.float32), image.affine
        context = Path(f"{stem}context.tsv").read_text().split()
        self.kinds = np.array(context[1:])
        sidecar = json.loads(Path(f"{stem}.json").read_text())
        self.delay = np.array(sidecar["PostLabelingDelay"], float)
        self.delay[self.kinds == "m0scan"] = np.nan
        duration = np.array(sidecar["LabelingDuration"], float)
        self.mask = brain_mask(self.data[..., self.kinds == "m0scan"].mean(axis=3), self.affine)
        self.centre = (self.affine @ [*np.argwhere(self.mask).mean(axis=0), 1.0])[:3]
        points = np.argwhere(self.mask)[::7]
        self.points = self.affine @ np.c_[points, np.ones(len(points))].T

        wall, cpu = time.perf_counter(), time.process_time()
        self.motion = estimate_motion(
            self.data, self.affine, self.kinds, self.delay, duration, n_procs=threads
        )
        self.cost = (time.perf_counter() - wall, time.process_time() - cpu)
        wall, cpu = time.perf_counter(), time.process_time()
        self.moved = apply_motion(self.data, self.affine, self.motion, n_procs=threads)
        self.apply_cost = (time.perf_counter() - wall, time.process_time() - cpu)

    def of_delay(self, delay: float) -> np.ndarray:
        """Volumes of a delay."""
        return np.flatnonzero(self.delay == delay)

    def distance(self, first: np.ndarray, second: np.ndarray) -> float:
        """RMS distance over the brain between two transforms, mm."""
        return float(np.sqrt((((first - second) @ self.points)[:3] ** 2).sum(axis=0).mean()))


def known_motions(study: Study, found: dict[str, Register], count: int) -> None:
    """Print table 1."""
    rng = np.random.default_rng(0)
    volumes = np.linspace(3, len(study.kinds) - 3, count).astype(int)
    cases = []
    for volume in volumes:
        others = [i for i in study.of_delay(study.delay[volume]) if i != volume]
        target = study.moved[..., others].mean(axis=3)
        for size in SIZES:
            parameters = rng.uniform(-1, 1, 6) * size
            if size == max(SIZES):
                parameters[2] = rng.choice([-1, 1]) * rng.uniform(2, 3)
            parameters[3:] = np.radians(parameters[3:])
            truth = to_matrix(parameters, study.centre)
            there = resample_filled(study.data[..., volume], study.affine, np.linalg.inv(truth))
            cases.append((volume, size, target, there, truth))
    heads = "".join(f"{f'{s:g}: mean':>11}{'max':>7}{'z max':>7}" for s in SIZES)
    print("1. Error (mm) for motions of up to ... mm and degrees; CPU seconds a volume")
    print(f"{'':36}{'CPU s':>7}{heads}")
    for name, run in found.items():
        base, errors, along, used = {}, {s: [] for s in SIZES}, {s: [] for s in SIZES}, []
        for volume, size, target, there, truth in cases:
            if volume not in base:
                base[volume] = run(target, study.data[..., volume])
            start = time.process_time()
            matrix = run(target, there)
            used.append(time.process_time() - start)
            expected = truth @ base[volume]
            errors[size].append(study.distance(matrix, expected))
            along[size].append(
                abs(to_parameters(np.linalg.inv(expected) @ matrix, study.centre)[2])
            )
        row = "".join(
            f"{np.mean(errors[s]):11.3f}{max(errors[s]):7.3f}{max(along[s]):7.3f}" for s in SIZES
        )
        print(f"{name:36}{np.median(used):7.2f}{row}", flush=True)
    print()


def contrast(study: Study, found: dict[str, Register]) -> None:
    """Print table 2."""
    delays = np.unique(study.delay[np.isfinite(study.delay)])
    averages = [study.moved[..., study.of_delay(d)].mean(axis=3) for d in delays]
    m0 = study.moved[..., study.kinds == "m0scan"].mean(axis=3)
    print("2. Fake motion between contrasts: shift x, y, z (mm), rotation x, y, z (degrees)")
    for name, run in found.items():
        rows = (
            (f"delay {delays[-1]:g} s to {delays[0]:g} s", averages[-1]),
            (f"M0 to delay {delays[0]:g} s", m0),
        )
        for what, moving in rows:
            matrix = run(averages[0], moving)
            values = to_parameters(matrix, study.centre) * np.array([1] * 3 + [180 / np.pi] * 3)
            size = study.distance(matrix, np.eye(4))
            print(f"{name:36}{what:26}{size:6.2f} mm  " + " ".join(f"{v:6.2f}" for v in values))
    print("(The volumes lie where the app, which adds continuity in time, has put them.)\n")


def effect(study: Study, found: dict[str, Register]) -> None:
    """Print table 3."""
    print("3. Differences: spread between repeats (mean over the brain), and their mean")

    def tell(name: str, data: np.ndarray) -> None:
        spread, mean = [], []
        for delay in np.unique(study.delay[np.isfinite(study.delay)]):
            members = study.of_delay(delay)
            kinds = study.kinds[members]
            pairs = data[..., members[kinds == "control"]] - data[..., members[kinds == "label"]]
            inside = pairs[study.mask]
            spread.append(inside.std(axis=1, ddof=1).mean())
            mean.append(inside.mean())
        print(f"{name:48}{np.mean(spread):8.3f}{np.mean(mean):8.3f}", flush=True)

    tell("no correction", study.data)
    tell("this app", study.moved)
    for name in ("SimpleITK squares, 20 %", "antspyx Rigid"):
        if name not in found:
            continue
        moved = study.data.copy()
        for delay in np.unique(study.delay[np.isfinite(study.delay)]):
            members = study.of_delay(delay)
            target = study.moved[..., members].mean(axis=3)
            for index in members:
                matrix = found[name](target, study.data[..., index])
                moved[..., index] = resample_filled(study.data[..., index], study.affine, matrix)
        tell(f"{name}, each delay to its average", moved)
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--volumes", type=int, default=6, help="volumes that are moved")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the app now and before, table 1")
    options = parser.parse_args()
    print(f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {platform.machine()}, ", end="")
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}"
    )
    for package in ("SimpleITK", "antspyx", "scipy", "numpy"):
        try:
            print(f"{package} {version(package)}", end="  ")
        except PackageNotFoundError:
            print(f"{package} absent", end="  ")
    study = Study(options.data, options.threads)
    print(f"\n{study.data.shape} voxels and volumes, {options.threads} threads")
    count = study.data.shape[3]
    wall, cpu = study.cost
    print(f"estimate_motion: {wall:.1f} s wall, {cpu:.1f} s CPU, {cpu / count:.3f} s CPU a volume")
    print("apply_motion:    {:.1f} s wall, {:.1f} s CPU\n".format(*study.apply_cost))
    found = methods(study.affine, study.mask, options.quick)
    known_motions(study, found, options.volumes)
    if options.quick:
        return
    contrast(study, found)
    effect(study, found)


if __name__ == "__main__":
    main()
