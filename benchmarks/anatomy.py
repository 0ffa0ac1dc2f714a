"""Anatomy against known truth: a simulated T1w and simulated ASL of one man.

Run ``python benchmarks/anatomy.py INDIVIDUALS DATA [--case L05 ...] [--starts 30]``, where
INDIVIDUALS holds ``anat/colin_{gm,wm,csf}.nii.gz`` and DATA is what its ``sim.py`` wrote. It
prints

- the own path from a raw T1w: seconds, memory, overlap with the known tissues, and overlap of
  the known tissues, warped to MNI152, with the template's: averaged over its voxels, as its own
  tissues are, and read at their middles by the transform as it is written;
- with ``--only warp`` the own path from a T1w of the template deformed in a known way: error of
  the transform, and overlap of tissues and deep grey matter by the known and the found one;
- ASL to T1w over random starts of up to 30 mm and 20 degrees: median and 95th percentile of the
  error, and how many runs of more than 3 mm were not flagged;
- means of grey and white matter by the ensemble, corrected by the tissue of the M0 and by that of
  the registered T1w;
- regions: bias and coverage of the 95 % intervals by noise and model over random parcels.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from asl_bids_app.anatomy import t1w, tissue_laying
from asl_bids_app.anatomy.poses import distance
from asl_bids_app.anatomy.records import TISSUES, Head
from asl_bids_app.anatomy.region_layout import DEEP, DEEP_GREY
from asl_bids_app.anatomy.register import register_asl
from asl_bids_app.anatomy.segment import dice, tissue_dice
from asl_bids_app.anatomy.transforms import move_points, to_and_from_template
from asl_bids_app.atlas import load_atlas
from asl_bids_app.preprocess.geometry import to_matrix


def colin(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the tissues (3, X, Y, Z), and an affine in the millimetres of the simulated ASL."""
    images = [
        nib.as_closest_canonical(nib.load(folder / f"anat/colin_{key}.nii.gz")) for key in TISSUES
    ]
    tissue = np.stack([np.asarray(i.dataobj, np.float32) / 100 for i in images])
    index = np.argwhere(tissue.sum(axis=0) > 0.5)
    low, high = index.min(axis=0), index.max(axis=0)
    low[2] = max(low[2], high[2] - 138)  # As the simulator cuts the neck.
    affine = np.eye(4)
    affine[:3, 3] = -(low + high) / 2
    return tissue, affine


def make_t1w(tissue: np.ndarray, seed: int = 0, voxel_mm: float = 1.0) -> np.ndarray:
    """Make a T1w with skull, scalp, bias field and noise."""
    rng = np.random.default_rng(seed)
    gm, wm, csf = tissue
    image = 0.6 * gm + 0.9 * wm + 0.25 * csf
    brain = tissue.sum(axis=0) > 0.5
    away = ndimage.distance_transform_edt(~brain) * voxel_mm
    image += ((away > 5) & (away < 11)) * 0.85 + ((away >= 2) & (away <= 5)) * 0.08
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in brain.shape], indexing="ij")
    bias = np.exp(0.25 * (0.6 * x * rng.standard_normal() + 0.6 * y + 0.5 * z**2 - 0.4 * x * y))
    image = ndimage.gaussian_filter(image * bias, 0.4)
    noise = 0.03 * (rng.standard_normal(image.shape) + 1j * rng.standard_normal(image.shape))
    return (1000 * np.abs(image + noise)).astype(np.float32)


def own_path(tissue: np.ndarray, affine: np.ndarray) -> Head:
    """Run the own path, and print its accuracy."""
    image = make_t1w(tissue)
    began, used = time.perf_counter(), time.process_time()
    head, found = t1w.understand(image, affine)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"raw T1w: {time.perf_counter() - began:.0f} s ({time.process_time() - used:.0f} s of "
        f"processor), peak {gigabytes:.1f} GB; {found.facts['kind']}; {list(head.warnings)}"
    )
    print(f"  brain {dice(head.brain, tissue.sum(axis=0) > 0.5):.3f}", end="; ")
    print(f"tissue against the truth: {tissue_dice(head.tissue(), tissue)}")
    atlas = load_atlas()
    true = Head(image, affine, head.brain, *tissue)
    moved = tissue_laying.to_template(true, affine, found.matrix, atlas)
    fixed = np.stack([atlas.gm, atlas.wm, atlas.csf]) * atlas.brain
    print(f"  true tissue in MNI152, affine: {tissue_dice(moved, fixed)}")
    if found.displacement is not None:
        warped = tissue_laying.warped(moved, found.displacement, atlas.affine)
        print(f"  diffeomorphic: {tissue_dice(warped, fixed)}, {found.facts['jacobian']}")
    to_template, _ = to_and_from_template(found, atlas.affine)
    place = index_of(move_points(to_template, fixed.shape[1:], atlas.affine), affine)
    print(f"  at the middles of voxels: {tissue_dice(read_at(tissue, place), fixed)}", flush=True)
    return head


def index_of(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return world points (X, Y, Z, 3) as voxels of a grid, (3, X, Y, Z)."""
    inverse = np.linalg.inv(affine)
    return np.moveaxis(points @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)


def read_at(maps: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Read maps (C, X, Y, Z) at voxels (3, ...), linearly."""
    return np.stack([ndimage.map_coordinates(np.asarray(m, float), place, order=1) for m in maps])


def known_warp(seed: int = 1, mm: float = 5.0) -> None:
    """Deform the template, make a T1w of it, and print how well the own path undoes that.

    Parameters
    ----------
    seed
    mm
        Root mean square of the smooth part; there are 5 % of stretching beside it.
    """
    atlas, rng = load_atlas(), np.random.default_rng(seed)
    maps = np.stack([atlas.gm, atlas.wm, atlas.csf])
    shape, affine = maps.shape[1:], np.asarray(atlas.affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    world = np.moveaxis(index, 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    size = float(np.abs(affine[0, 0]))
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), 7) for _ in range(3)])
    field *= mm / size / np.sqrt(3) / field.std()
    middle = np.array(shape)[:, None, None, None] / 2
    place = (index - middle) * (1 + 0.05 * rng.standard_normal(3)[:, None, None, None]) + middle
    place += field
    tissue = read_at(maps, place)
    used = time.process_time()
    head, found = t1w.understand(make_t1w(tissue, voxel_mm=size), affine)
    print(f"known warp: {time.process_time() - used:.0f} s of processor; {found.facts}")
    _, back = to_and_from_template(found, affine)
    mine = index_of(move_points(back, shape, affine), affine)
    off = size * np.linalg.norm(place - mine, axis=0)[head.brain]
    moved = size * np.linalg.norm(field, axis=0)[head.brain]
    print(
        f"  error: median {np.median(off):.2f} mm, 95 % below {np.percentile(off, 95):.2f} mm, of "
        f"{np.median(moved):.1f} mm; tissue {tissue_dice(read_at(maps, mine), tissue)}"
    )
    deep = [in_ellipsoid(world, *part) & (maps[0] > DEEP_GREY) for part in DEEP]
    for name, where in zip(
        ("thalamus", "caudate", "putamen, pallidum", "deep grey"),
        (*deep, np.any(deep, axis=0)),
        strict=True,
    ):
        a, b = (read_at(where[None], p)[0] > 0.5 for p in (place, mine))
        print(f"  {name}: {dice(a, b):.3f}", flush=True)


def in_ellipsoid(
    points: np.ndarray, middle: tuple[float, ...], axes: tuple[float, ...]
) -> np.ndarray:
    """Say which points lie in an ellipsoid or its mirror image."""
    offset = np.concatenate([np.abs(points[..., :1]), points[..., 1:]], -1) - middle
    return ((offset / axes) ** 2).sum(axis=-1) <= 1


def registration(data: Path, cases: list[str], head: Head, starts: int) -> None:
    """Register each case from random starts, and print the errors."""
    from asl_bids_app.preprocess.mask import brain_mask

    rng = np.random.default_rng(0)
    errors, silent, flagged = [], 0, 0
    for k in range(starts):
        case = cases[k % len(cases)]
        stem = data / f"sub-{case}/perf/sub-{case}"
        image = nib.load(f"{stem}_m0scan.nii.gz")
        m0 = image.get_fdata(dtype=np.float32)
        volumes = nib.load(f"{stem}_asl.nii.gz").get_fdata(dtype=np.float32)
        mask = brain_mask(m0, image.affine)
        delta = (volumes[..., 1::2] - volumes[..., ::2]).mean(axis=-1)
        delta = delta / np.maximum(m0, 0.3 * m0[mask].mean())
        shift, turn = rng.standard_normal(3), rng.standard_normal(3)
        shift *= 30 * rng.random() ** (1 / 3) / np.linalg.norm(shift)
        turn *= np.radians(20) * rng.random() ** (1 / 3) / np.linalg.norm(turn)
        moved = to_matrix(np.concatenate([shift, turn]), np.zeros(3))
        placed = Head(head.t1w, moved @ head.affine, head.brain, head.gm, head.wm, head.csf)
        found = register_asl({"M0": m0, "ΔM": delta}, mask, image.affine, placed)
        error = distance(found.matrix, moved, np.zeros(3))
        errors.append(error)
        flagged += not found.registered
        silent += found.registered and error > 3
        print(f"  {case}: {error:.2f} mm, {found.facts}", flush=True)
    print(
        f"ASL to T1w, {starts} starts: median {np.median(errors):.2f} mm, 95 % below "
        f"{np.percentile(errors, 95):.2f} mm; {flagged} flagged, {silent} off by more than 3 mm "
        "unflagged"
    )


def means(data: Path, cases: list[str], head: Head) -> None:
    """Correct the ensemble's means by the tissue of the M0 and of the T1w, and print both."""
    from individuals import regions as regions_of
    from individuals import truth_of

    from asl_bids_app.anatomy.pose_files import fractions
    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.estimators.regional import correct_means, tissue_fractions
    from asl_bids_app.models.store import load_model
    from asl_bids_app.options.table import AppOptions
    from asl_bids_app.preprocess.assemble import assemble
    from asl_bids_app.preprocess.moved import correct_motion
    from asl_bids_app.preprocess.prepare import prepare_run
    from asl_bids_app.preprocess.tissue_maps import find_tissue, sharpen
    from asl_bids_app.series import to_volume
    from asl_bids_app.workflows.plan import make_plan

    model = load_model(None)
    for case in cases:
        truth = truth_of(data, case)
        options = AppOptions(
            data, data, data, participant_label=(case,), skip_bids_validation=True
        )
        unit = make_plan(options).participants[0].units[0]
        prepared = [
            prepare_run(run, correct_motion(run.acquisition, hmc=False, threads=1), align_m0=False)
            for run in unit.runs
        ]
        first = prepared[0]
        series = assemble(unit, prepared, move=False)
        images = {"M0": first.head, "ΔM": first.delta_m.mean(axis=-1)}
        found = register_asl(images, first.mask, first.affine, head)
        tissue = {
            "M0": sharpen(first, find_tissue(first, {}), given=False).alike,
            "T1w": fractions(head, found.matrix, first.mask.shape, first.affine),
        }
        fitted = Ensemble(model, error_bars="noise").fit(series)
        for source, maps in tissue.items():
            shares = tissue_fractions(maps, series.slice_axis)
            corrected = correct_means(fitted, series, series.voxel_mm, shares)
            cbf = to_volume(corrected.cbf.numpy(), series.slice_axis)
            for region, where in regions_of(truth, first.mask):
                off = (cbf - truth["cbf"])[where]
                print(
                    f"means, {case}, {region}, tissue of the {source}: bias "
                    f"{100 * off.mean() / truth['cbf'][where].mean():+.1f} %, MAE "
                    f"{np.abs(off).mean():.2f}",
                    flush=True,
                )


def regions(data: Path, case: str, count: int = 150) -> None:
    """Fit random parcels of grey matter and of all tissue, and print bias and coverage."""
    import torch

    from asl_bids_app.anatomy.region_fit import fit_region
    from asl_bids_app.anatomy.signals import signals_of
    from asl_bids_app.calibration import Calibration
    from asl_bids_app.constants import Quantity, Source
    from asl_bids_app.estimators.least_squares import LeastSquares
    from asl_bids_app.estimators.noise import noise_level
    from asl_bids_app.observation import observe
    from asl_bids_app.protocol import Protocol
    from asl_bids_app.schemes import Scheme, transit_prior
    from asl_bids_app.series import Series, to_slices, to_volume

    stem = data / f"sub-{case}/perf/sub-{case}"
    about = json.loads(Path(f"{stem}_asl.json").read_text())
    scheme = Scheme(about["ArterialSpinLabelingType"])
    image = nib.load(f"{stem}_asl.nii.gz")
    volumes = image.get_fdata(dtype=np.float32)
    m0 = nib.load(f"{stem}_m0scan.nii.gz").get_fdata(dtype=np.float32)

    def truth(key: str) -> np.ndarray:
        return nib.load(data / f"truth/sub-{case}_{key}.nii.gz").get_fdata()

    mask = truth("mask") > 0
    delta = (
        (volumes[..., 1::2] - volumes[..., ::2]) / np.maximum(m0, 1)[..., None] * mask[..., None]
    )
    delays = np.atleast_1d(about["PostLabelingDelay"])
    n = delta.shape[-1]
    delays = np.full(n, delays[0]) if len(delays) == 1 else delays[::2]

    def quantity(value: float) -> Quantity:
        return Quantity(value, "", Source.DEFAULT)

    calibration = Calibration(
        quantity(1.65),
        quantity(1.65),
        quantity(0.9),
        {scheme: quantity(about["LabelingEfficiency"])},
        {scheme: quantity(1.0)},
        quantity(1.6),
        quantity(1.0),
    )
    protocol = Protocol(
        (scheme,) * n,
        torch.tensor(delays, dtype=torch.float32),
        torch.full((n,), float(about.get("LabelingDuration", 0.7))),
        torch.zeros(1, n),
        (False,) * n,
    )
    series = Series(
        protocol,
        calibration,
        torch.from_numpy(np.ascontiguousarray(to_slices(delta.astype(np.float32)))),
        torch.from_numpy(np.ascontiguousarray(to_slices(mask))),
        torch.ones(n, dtype=torch.int64),
    )
    fit = LeastSquares().fit(series)
    volume = {k: to_volume(getattr(fit, k).numpy()) for k in ("residual", "att", "att_sd", "cbf")}
    signals = signals_of(
        observe(series, noise_level(series)),
        2,
        transit_prior(protocol.schemes),
        volume["residual"],
        None,
        volume["att"],
        volume["att_sd"],
    )
    cbf, sizes = truth("cbf"), image.header.get_zooms()[:3]
    for name, where in (
        ("grey matter", truth("gm") > 0.7),
        ("white matter", truth("wm") > 0.7),
        ("all tissue", truth("tissue") > 0),
    ):
        place = np.argwhere(where & mask)
        rng = np.random.default_rng(0)
        seeds = place[rng.choice(len(place), count, replace=False)] * sizes
        label = cKDTree(seeds).query(place * sizes)[1]
        off, inside, by_map = [], [], []
        for k in range(count):
            if (label == k).sum() < 15:
                continue
            chosen = np.zeros(mask.shape, bool)
            chosen[tuple(place[label == k].T)] = True
            found, true = fit_region(signals, chosen), cbf[chosen].mean()
            off.append(found.cbf / true - 1)
            by_map.append(volume["cbf"][chosen].mean() / true - 1)
            sd = np.hypot(found.se_noise, found.se_model)
            inside.append(abs(found.cbf - true) < 1.96 * sd)
        print(
            f"regions, {case}, {name}: bias {100 * np.mean(off):+.1f} % (mean of the "
            f"least-squares map {100 * np.mean(by_map):+.1f} %), 95 % intervals hold "
            f"{100 * np.mean(inside):.0f} %"
        )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("individuals", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--case", nargs="+", default=["L05", "S03", "LES05"])
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--only", choices=("warp", "registration", "means", "regions"))
    options = parser.parse_args()
    if options.only == "warp":
        known_warp()
    if options.only not in ("regions", "warp"):
        tissue, affine = colin(options.individuals)
        head = own_path(tissue, affine)
        if options.only != "means":
            registration(options.data, options.case, head, options.starts)
        if options.only != "registration":
            means(options.data, options.case, head)
    if options.only in (None, "regions"):
        for case in options.case:
            regions(options.data, case)


if __name__ == "__main__":
    main()
