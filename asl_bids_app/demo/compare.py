"""``python -m asl_bids_app.demo.compare``: how near maps came to the simulated truth."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np

from asl_bids_app.bids.outputs import OUTPUTS, Output
from asl_bids_app.errors import AslAppError, InputError

TISSUES: Final = {"GM": 1, "WM": 2, "core": 4, "rim": 5}
"""Labels of the truth's segmentation that are compared."""

PAIRS: Final = (
    ("cbf", "cbf_sd"),
    ("att", "att_sd"),
    ("lsq_cbf", "lsq_cbf_sd"),
    ("lsq_att", "lsq_att_sd"),
)
"""Keys of the output table: a map, and its standard deviation."""


LEGEND: Final = (
    "truth: its mean; bias, MAE: mean error and mean absolute error; r: correlation over voxels;\n"
    "95 % cover: how often the truth lies within 1.96 standard deviations of the map."
)


@dataclass(frozen=True)
class Score:
    """How near a map came to the truth in a tissue.

    Attributes
    ----------
    file, estimator, quantity, tissue : str
    units : str
    voxels : int
        Of the tissue, inside the brain mask.
    truth : float
        Mean of the truth.
    bias, mae : float
        Mean error and mean absolute error.
    correlation : float
        Pearson's, over the voxels; NaN where there are fewer than 3.
    coverage : float
        Share of voxels whose truth lies within 1.96 standard deviations; NaN without them.
        95 % is honest.
    """

    file: str
    estimator: str
    quantity: str
    tissue: str
    units: str
    voxels: int
    truth: float
    bias: float
    mae: float
    correlation: float
    coverage: float


def compare(derivatives: Path | str, truth: Path | str) -> list[Score]:
    """Compare every CBF and ATT map of a derivatives folder with the truth.

    Parameters
    ----------
    derivatives
        Output folder of the app.
    truth
        The ``derivatives/truth`` folder of a simulated dataset.

    Raises
    ------
    InputError
        If there is nothing to compare, or a map lies on another grid than the truth.
    """
    derivatives, truth = Path(derivatives), Path(truth)
    scores = [
        score
        for dseg in sorted(truth.glob("sub-*/perf/*_dseg.nii.gz"))
        for score in _compare_participant(derivatives, dseg)
    ]
    if not scores:
        raise InputError(
            derivatives, "", "no map of a participant of the truth", "cbf and att maps of the app"
        )
    return scores


def _compare_participant(derivatives: Path, dseg: Path) -> Iterator[Score]:
    prefix = dseg.name.removesuffix("_dseg.nii.gz")
    folder = derivatives / prefix / "perf"
    labels = nib.load(dseg)
    main = OUTPUTS["cbf"].suffix + OUTPUTS["cbf"].extension
    for cbf in sorted(folder.glob(f"{prefix}*_{main}")):
        if "_desc-" in cbf.name:
            continue
        series = cbf.name.removesuffix(f"_{main}")
        for key, sd_key in PAIRS:
            path, sd_path = (_file(folder, series, OUTPUTS[k]) for k in (key, sd_key))
            if path.exists():
                true = nib.load(dseg.with_name(f"{prefix}_{OUTPUTS[key].suffix}.nii.gz"))
                mask = _file(folder, series, OUTPUTS["mask"])
                yield from _scores(path, sd_path, mask, true, labels, OUTPUTS[key])


def _file(folder: Path, series: str, output: Output) -> Path:
    entities = dict(part.split("-", 1) for part in series.split("_"))
    return folder / output.name(entities)


def _scores(
    path: Path,
    sd_path: Path,
    mask_path: Path,
    true: nib.Nifti1Image,
    labels: nib.Nifti1Image,
    output: Output,
) -> Iterator[Score]:
    estimate = _on_grid(path, labels)
    sd = _on_grid(sd_path, labels) if sd_path.exists() else None
    mask = _on_grid(mask_path, labels) > 0
    truth, tissue_of = true.get_fdata(), np.asarray(labels.dataobj)
    estimator = "least squares" if output.baseline else _estimator(path)
    for tissue, label in TISSUES.items():
        inside = (tissue_of == label) & mask
        if not inside.any():
            continue
        error = estimate[inside] - truth[inside]
        coverage = correlation = np.nan
        if sd is not None:
            coverage = float((np.abs(error) <= 1.96 * sd[inside]).mean())
        if inside.sum() > 2 and estimate[inside].std() > 0:
            correlation = float(np.corrcoef(estimate[inside], truth[inside])[0, 1])
        yield Score(
            path.name,
            estimator,
            output.suffix,
            tissue,
            output.units,
            int(inside.sum()),
            float(truth[inside].mean()),
            float(error.mean()),
            float(np.abs(error).mean()),
            correlation,
            coverage,
        )


def _estimator(path: Path) -> str:
    sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
    return str(json.loads(sidecar.read_text()).get("EstimationMethod", "main"))


def _on_grid(path: Path, like: nib.Nifti1Image) -> np.ndarray:
    image = nib.load(path)
    if image.shape[:3] != like.shape[:3] or not np.allclose(image.affine, like.affine, atol=1e-3):
        raise InputError(path, "affine", "another grid", "the grid of the truth")
    return image.get_fdata()


def table(scores: Sequence[Score]) -> str:
    """Lay scores out as text, one block a series and estimator."""
    lines: list[str] = []
    last = ""
    for s in scores:
        title = f"{s.file} ({s.estimator}), {s.units}"
        if title != last:
            lines += ["", title, "  tissue  voxels   truth    bias     MAE      r   95 % cover"]
            last = title
        digits = 1 if s.quantity == "cbf" else 3
        cover = "n/a" if np.isnan(s.coverage) else f"{100 * s.coverage:.1f} %"
        r = "n/a" if np.isnan(s.correlation) else f"{s.correlation:.2f}"
        lines.append(
            f"  {s.tissue:6}{s.voxels:8d}{s.truth:8.{digits}f}{s.bias:+8.{digits}f}"
            f"{s.mae:8.{digits}f}{r:>7}{cover:>13}"
        )
    return "\n".join([*lines[1:], "", LEGEND])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m asl_bids_app.demo.compare",
        description="Tell how near the maps of a simulated dataset came to the truth.",
    )
    parser.add_argument("derivatives", help="output folder of the app")
    parser.add_argument("truth", help="derivatives/truth of the simulated dataset")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    options = parser.parse_args(argv)
    try:
        scores = compare(options.derivatives, options.truth)
    except AslAppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(table(scores) + "\n")
    if options.json:
        rows = [
            {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(s).items()}
            for s in scores
        ]
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
