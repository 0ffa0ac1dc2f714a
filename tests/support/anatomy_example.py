"""Files of the anatomy as a report reads them, for tests."""

import numpy as np

from asl_bids_app.anatomy.view_files import views_file, write_views
from asl_bids_app.anatomy.views import REGISTRATION, TEMPLATE, Slice, Views
from asl_bids_app.bids.derivatives import perf_folder, write_table

SIZE_MM = (120.0, 150.0)
FACTS = {
    "kind": "raw T1w",
    "t1w": "sub-01_T1w.nii.gz",
    "template": "MNI152NLin2009aSym",
    "normalisation": {"kind": "diffeomorphic", "dice": {"gm": 0.81, "wm": 0.79}},
    "registration": {
        "registered": True,
        "image": "M0",
        "dice": 0.95,
        "score": 0.4,
        "expected_error_mm": 0.2,
        "moved_mm": 3.0,
        "boundary_contrast": 0.12,
        "nmi": 1.09,
    },
    "spaces": [{"space": "MNI152NLin2009cAsym", "res": "2"}],
    "atlases": [{"atlas": "tissue", "regions": 3}],
}


def disk(shape, middle_mm, radius_mm):
    """Bytes: 255 within a circle of the rectangle, mm from its left lower corner."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    place = (index + 0.5) * np.array(SIZE_MM) / shape
    away = radius_mm - np.linalg.norm(place - middle_mm, axis=-1)
    return np.rint(255 * np.clip(0.5 + away, 0, 1)).astype(np.uint8)


def views_of(base, layers, middle=(40.0, 90.0), radius=25.0):
    """Two slices with a disk as white matter, and a larger one as tissue."""
    slices = []
    for axis, number in ((2, 7), (0, 5)):
        fine = {
            base: disk((120, 150), middle, 50),
            "wm": disk((120, 150), middle, radius),
            "tissue": disk((120, 150), middle, 2 * radius),
        }
        for k, name in enumerate(layers):
            fine[name] = np.full((30, 30), 20.0 + k, np.float32)
            fine[name][:3] = np.nan
        slices.append(Slice(axis, number, SIZE_MM, fine))
    return Views(tuple(slices), {"base": base, "space": "MNI152NLin2009aSym"})


def add_views(output_dir, entities, facts=FACTS, *, template=True):
    found = {REGISTRATION: views_of("T1w", ("M0", "CBF"))}
    if template:
        on_template = views_of("template", ("CBF",))
        for item in on_template.slices:
            item.layers["T1w"] = disk((120, 150), (60, 60), 30)
        found[TEMPLATE] = on_template
    path = views_file(output_dir, entities)
    write_views(path, found, facts)
    return path


def region_rows(*rows):
    """Columns of a table from (name, coverage, CBF, its errors by noise, model, calibration)."""
    columns = {
        "index": [], "name": [], "voxels": [], "coverage": [], "cbf_mean": [], "cbf_fit": [],
        "cbf_se": [], "cbf_se_noise": [], "cbf_se_model": [], "cbf_se_calibration": [],
        "att_mean": [], "att_fit": [], "att_se": [], "misfit": [],
    }  # fmt: skip
    for k, (name, coverage, cbf, noise, model, calibration) in enumerate(rows, 1):
        values = {
            "index": k,
            "name": name,
            "voxels": 100,
            "coverage": coverage,
            "cbf_mean": cbf + 1,
            "cbf_fit": cbf,
            "cbf_se": float(np.sqrt(noise**2 + model**2 + calibration**2)),
            "cbf_se_noise": noise,
            "cbf_se_model": model,
            "cbf_se_calibration": calibration,
            "att_mean": 1.2,
            "att_fit": 1.25 if np.isfinite(cbf) else np.nan,
            "att_se": 0.05,
            "misfit": 1.0,
        }
        for key, column in columns.items():
            column.append(values[key])
    return columns


NONE = float("nan")
USUAL = (
    ("GM", 0.98, 55.0, 1.0, 0.5, 4.4),
    ("Left-Thalamus", 1.0, 60.0, 1.0, 0.0, 4.8),
    ("Right-Thalamus", 1.0, 40.0, 1.0, 0.0, 3.2),
    ("Cerebellum", 0.3, NONE, NONE, NONE, NONE),
)


def add_regions(output_dir, entities, rows=USUAL, atlas="tissue"):
    title = "_".join(f"{key}-{value}" for key, value in entities.items())
    path = perf_folder(output_dir, entities) / f"{title}_atlas-{atlas}_desc-fit_cbf.tsv"
    write_table(path, region_rows(*rows))
    return path
