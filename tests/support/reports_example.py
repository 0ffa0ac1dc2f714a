"""Derivatives of simulated participants as the app leaves them, for tests of the reports.

The signal follows the closed-form equations of `fake_bids`, which are apart from the
package's own kinetics; anatomy is the packaged atlas, coarsely sampled.
"""

from __future__ import annotations

import fake_bids
import numpy as np

from asl_bids_app.atlas import load_atlas
from asl_bids_app.bids.dataset_description import describe_dataset
from asl_bids_app.bids.derivatives import perf_folder, write_image, write_json, write_table
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.quality.definitions import dictionary
from asl_bids_app.quality.image_set import UnitImages
from asl_bids_app.quality.metrics import compute, plausibility

DELAYS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
SLICE_STEP = 0.04  # s, of a 2D readout
NOISE = {"PCASL": 6e-4, "PASL": 6e-4, "VSASL": 8e-4}


def quantity(value, unit="fraction", source="default", note=""):
    return {"Value": value, "Units": unit, "Source": source, "Note": note}


def calibration(schemes):
    found = {
        "t1_blood": quantity(1.65, "s", "default", "Alsop 2015, doi:10.1002/mrm.25197"),
        "t1_tissue": quantity(1.65, "s", "default", "equal to t1_blood"),
        "partition_coefficient": quantity(0.9, "mL/g"),
    }
    for scheme in schemes:
        found[f"labeling_efficiency[{scheme}]"] = quantity(
            fake_bids.EFFICIENCY[scheme], source="sidecar", note="LabelingEfficiency"
        )
        found[f"suppression[{scheme}]"] = quantity(1.0)
    return found | {
        "t1_tissue_m0": quantity(1.607, "s"),
        "m0_scale": quantity(1.0, source="command line", note="--m0-scale"),
    }


def measurements(schemes, two_d, n_slices):
    timing = [round(SLICE_STEP * z, 4) for z in range(n_slices)] if two_d else None
    return [
        {
            "Scheme": scheme,
            "PostLabelingDelay": delay,
            "LabelingDuration": None if scheme == "VSASL" else {"PASL": 0.7}.get(scheme, 1.8),
            "Repeats": 4,
            "SliceTiming": timing,
        }
        for scheme in schemes
        for delay in DELAYS
    ]


class Brain:
    """Truth of one simulated participant; `lesion` lowers flow and delays it on the right."""

    def __init__(self, step=2, seed=1, lesion=False):
        atlas = load_atlas()
        cut = (slice(5, -5, step), slice(5, -5, step), slice(12, -8, max(step, 3)))
        self.gm, self.wm, self.csf = (getattr(atlas, k)[cut] for k in ("gm", "wm", "csf"))
        self.mask = self.gm + self.wm + self.csf > 0.5
        self.affine = atlas.affine @ np.diag([step, step, max(step, 3), 1.0])
        self.affine[:3, 3] = (atlas.affine @ [5, 5, 12, 1])[:3]
        self.rng = np.random.default_rng(seed)
        self.cbf = np.where(self.mask, 65 * self.gm + 22 * self.wm, 0).astype(np.float32)
        self.att = np.where(self.mask, 0.9 * self.gm + 1.4 * self.wm + 1.2 * self.csf, 0)
        if lesion:
            i, j, k = np.indices(self.mask.shape)
            nx, ny, nz = self.mask.shape
            ball = ((i - 0.72 * nx) / 9) ** 2 + ((j - 0.5 * ny) / 10) ** 2 + (
                (k - 0.55 * nz) / 6
            ) ** 2 < 1
            self.cbf[ball] *= 0.25
            self.att[ball & self.mask] = 2.4
        self.cbf[self.mask & (self.csf > 0.5)] = 4


def write_series(
    output_dir,
    entities,
    schemes=("PCASL",),
    *,
    brain=None,
    two_d=False,
    baseline=True,
    estimator="ensemble",
    flip=False,
    scale=1.0,
):
    """Write all derivatives of a series and return what its record says of it."""
    brain = brain or Brain()
    rng, mask, affine = brain.rng, brain.mask, brain.affine
    nx, _, nz = mask.shape
    rows = measurements(schemes, two_d, nz)
    shift = SLICE_STEP * np.arange(nz) if two_d else np.zeros(nz)
    clean = np.zeros((*mask.shape, len(rows)))
    for i, row in enumerate(rows):
        duration = np.inf if row["LabelingDuration"] is None else row["LabelingDuration"]
        clean[..., i] = fake_bids.delta_m(
            row["Scheme"], row["PostLabelingDelay"] + shift, duration, brain.cbf, brain.att
        )
    noise_sd = np.array([NOISE[row["Scheme"]] for row in rows])
    noise = np.where(mask[..., None], noise_sd, 0.0)
    delta_m = np.where(mask[..., None], clean + rng.normal(0, 1, clean.shape) * noise, 0)

    def with_noise(values, sd):
        return np.where(mask, values + rng.normal(0, sd, mask.shape), 0)

    images = {
        "cbf": scale * with_noise(brain.cbf, 2.0),
        "att": with_noise(brain.att, 0.05),
        "cbf_sd": np.where(mask, 3 + 0.02 * brain.cbf, 0),
        "att_sd": np.where(mask, 0.06 + 0.3 * (brain.cbf < 10), 0),
        "flags": np.where(mask & (brain.csf > 0.8), 8, 0).astype(np.uint8),
        "residual": delta_m - clean,
        "delta_m": delta_m,
        "noise": noise,
        "m0": 900 * (brain.gm + brain.wm + 1.3 * brain.csf) + 20,
        "mask": mask,
        "gm": brain.gm,
        "wm": brain.wm,
        "csf": brain.csf,
    }
    if baseline:
        images |= {
            "lsq_cbf": np.clip(with_noise(brain.cbf, 9.0), 0, 300) * mask,
            "lsq_att": np.clip(with_noise(brain.att, 0.25), 0.05, 4) * mask,
            "lsq_cbf_sd": np.where(mask, 9.0, 0),
            "lsq_att_sd": np.where(mask, 0.25, 0),
            "lsq_flags": np.where(mask & (brain.csf > 0.8), 2, 0).astype(np.uint8),
        }
    volumes = 2 * 4 * len(rows)
    confounds = {
        **{f"trans_{a}": np.cumsum(rng.normal(0, 0.04, volumes)) for a in "xyz"},
        **{f"rot_{a}": np.cumsum(rng.normal(0, 5e-4, volumes)) for a in "xyz"},
        "framewise_displacement": np.r_[np.nan, np.abs(rng.normal(0.12, 0.08, volumes - 1))],
    }
    metrics = compute(
        UnitImages(
            **images,
            affine=affine,
            framewise_displacement=confounds["framewise_displacement"],
            tsnr=np.where(mask, 80.0, 0),
        )
    )
    sidecar = {
        "Sources": [f"bids:raw:sub-{entities['sub']}/perf/x_asl.nii.gz"],
        "EstimationMethod": estimator,
        "Model": {"Name": "posterior", "Version": "1.0", "SHA256": "0" * 64, "Members": 5},
        "Measurements": rows,
        "Calibration": calibration(schemes),
        "NoiseEstimation": dict.fromkeys(schemes, "repeats"),
        "Warnings": ["x_asl.json: LabelingEfficiency: found nothing; <default> assumed"],
    }
    folder = perf_folder(output_dir, entities)
    for key, image in images.items():
        # Stored right to left, as many scanners do.
        data = np.asarray(image)[:: -1 if flip else 1]
        stored = affine @ np.array(
            [[-1, 0, 0, nx - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
        )
        write_image(folder, entities, OUTPUTS[key], data, stored if flip else affine, sidecar)
    write_table(folder / OUTPUTS["confounds"].name(entities), confounds)
    quality = folder / OUTPUTS["quality"].name(entities)
    write_table(quality, {name: [value] for name, value in metrics.items()})
    write_json(quality.with_suffix(".json"), dictionary())
    return {
        "entities": dict(entities),
        "joint": len(schemes) > 1,
        "folder": folder.relative_to(output_dir).as_posix(),
        "estimator": estimator,
        "baseline": baseline,
        "model": sidecar["Model"],
        "runs": [
            {
                "path": f"sub-{entities['sub']}_acq-{scheme.lower()}_asl.nii.gz",
                "scheme": scheme,
                "volumes": {"control": 4 * len(DELAYS), "label": 4 * len(DELAYS)},
                "post_labeling_delay": list(DELAYS),
                "label_duration": [
                    row["LabelingDuration"] for row in rows if row["Scheme"] == scheme
                ],
                "volumes_per_measurement": [8] * len(DELAYS),
                "slice_time": [0.0, float(shift.max())],
                "m0": {
                    "kind": "Separate",
                    "path": "sub-01_m0scan.nii.gz",
                    "repetition_time": [6.0],
                    "estimate": None,
                    "filled_voxels": 12,
                },
                "warnings": [],
                "inferred": {"LabelingDuration": "from BolusCutOffDelayTime"}
                if scheme == "PASL"
                else {},
            }
            for scheme in schemes
        ],
        "calibration": calibration(schemes),
        "noise_method": sidecar["NoiseEstimation"],
        "metrics": metrics,
        "warnings": sidecar["Warnings"],
        "plausibility": plausibility(metrics),
        "outputs": [OUTPUTS[key].name(entities) for key in images],
        "timing": {"motion0": 12.3, "fit": 4.2, "baseline": 1.1},
    }


def write_record(
    output_dir,
    label,
    units=(),
    *,
    status="complete",
    errors=(),
    run="20260101-101010-abc",
    sessions=(),
):
    """Write the record that a run leaves of a participant."""
    record = {
        "participant": label,
        "run_id": run,
        "version": "0.1.0",
        "started": "2026-01-01T10:10:10+00:00",
        "finished": "2026-01-01T10:12:10+00:00",
        "status": status,
        "command": ["asl-app", "bids", "out", "participant"],
        "options": {"hmc": True, "tissue": True, "nprocs": 2, "session_label": list(sessions)},
        "machine": {"platform": "Linux", "processors": 2},
        "software": {"python": "3.11", "nipype": "1.10.0", "torch": "2.13"},
        "errors": list(errors),
        "warnings": [text for unit in units for text in unit["warnings"]],
        "plausibility": [text for unit in units for text in unit["plausibility"]],
        "units": list(units),
    }
    write_json(output_dir / "logs" / run / f"sub-{label}.json", record)
    return record


def write_participant(output_dir, label="01", **changes):
    """Write a participant of one joint series with its record."""
    unit = write_series(output_dir, {"sub": label}, ("PCASL", "VSASL"), **changes)
    write_record(output_dir, label, [unit])
    return unit


def write_dataset(output_dir):
    describe_dataset(output_dir, output_dir / "raw", {"Name": "Simulated"})
