"""How well the maps of two halves of a real scan agree, by the ensemble and by least squares.

    python benchmarks/split_half.py --data ../shared/data/oxford_pcasl --figure halves.png

Makes two datasets of the odd and the even repeats, runs the app on each as a user would, and
prints the correlation of their maps over the tissue that both masks hold, with the contrast of
grey to white matter, which no smoothing may cost.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np

PAIR = 2


def half(data, target, parity):
    """Write a dataset with every second repeat of a single-run dataset of cycled delays."""
    image_path = next(data.glob("sub-*/perf/*_asl.nii.gz"))
    shutil.copytree(data, target)
    place = target / image_path.relative_to(data)
    stem = place.name.removesuffix("_asl.nii.gz")
    image = nib.load(image_path)
    context = place.with_name(f"{stem}_aslcontext.tsv")
    rows = context.read_text().split()[1:]
    sidecar = place.with_name(f"{stem}_asl.json")
    metadata = json.loads(sidecar.read_text())
    delays = metadata["PostLabelingDelay"]
    signal = [i for i, row in enumerate(rows) if row in {"label", "control"}]
    cycle = PAIR * len({delays[i] for i in signal})
    chosen = {i for n, i in enumerate(signal) if (n // cycle) % 2 == parity}
    keep = [i for i, row in enumerate(rows) if row == "m0scan" or i in chosen]
    for key, value in metadata.items():
        if isinstance(value, list) and len(value) == len(rows):
            metadata[key] = [value[i] for i in keep]
    volumes = np.asanyarray(image.dataobj)[..., keep]
    nib.save(nib.Nifti1Image(volumes, image.affine, image.header), place)
    context.write_text("\n".join(["volume_type", *(rows[i] for i in keep)]) + "\n")
    sidecar.write_text(json.dumps(metadata, indent=1))


def run(data, folder, arguments):
    """Run the app; return its maps by name."""
    command = [sys.executable, "-m", "asl_bids_app.cli.app", str(data), str(folder / "out")]
    command += ["participant", "-w", str(folder / "work"), "-q", *arguments]
    subprocess.run(command, check=True)

    perf = folder / "out"
    main = [p for p in perf.glob("sub-*/perf/*.nii.gz") if "desc-" not in p.name]
    cbf = next(p for p in main if p.name.endswith("_cbf.nii.gz"))

    def read(pattern):
        return nib.load(next(perf.glob(f"sub-*/perf/*{pattern}.nii.gz"))).get_fdata()

    sidecar = json.loads(Path(str(cbf).replace(".nii.gz", ".json")).read_text())
    return {
        "cbf": nib.load(cbf).get_fdata(),
        "att": nib.load(next(p for p in main if p.name.endswith("_att.nii.gz"))).get_fdata(),
        "lsq_cbf": read("desc-lsq_cbf"),
        "lsq_att": read("desc-lsq_att"),
        "gm": read("label-GM_probseg"),
        "wm": read("label-WM_probseg"),
        "abv": [nib.load(p).get_fdata() for p in main if p.name.endswith("_abv.nii.gz")],
        "method": sidecar["EstimationMethod"],
    }


def compare(first, second):
    """Correlations, and grey/white ratios of CBF, by estimator."""
    grey = np.minimum(first["gm"], second["gm"])
    white = np.minimum(first["wm"], second["wm"])
    tissue = (grey + white > 0.8) & (first["cbf"] != 0) & (second["cbf"] != 0)
    found = {"voxels": int(tissue.sum())}
    for prefix, name in (("", first["method"]), ("lsq_", "least-squares")):
        entry = {}
        for key in ("cbf", "att"):
            a, b = first[prefix + key], second[prefix + key]
            entry[f"{key} correlation"] = round(float(np.corrcoef(a[tissue], b[tissue])[0, 1]), 3)
        if not prefix and first["abv"] and second["abv"]:
            a, b = first["abv"][0][tissue], second["abv"][0][tissue]
            entry["abv correlation"] = round(float(np.corrcoef(a, b)[0, 1]), 3)
        both = [maps[prefix + "cbf"] for maps in (first, second)]
        entry["grey/white ratio of CBF"] = [
            round(float(cbf[grey > 0.7].mean() / cbf[white > 0.7].mean()), 3) for cbf in both
        ]
        entry["grey matter CBF"] = [round(float(cbf[grey > 0.7].mean()), 1) for cbf in both]
        found[name] = entry
    return found


def draw(first, second, path):
    """Draw a slice of every map of both halves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = (("cbf", 100), ("lsq_cbf", 100), ("att", 2), ("lsq_att", 2))
    middle = first["cbf"].shape[2] // 2
    figure, axes = plt.subplots(4, 6, figsize=(12, 8.4), layout="constrained")
    for line, (key, top) in zip(axes, rows, strict=True):
        for n, axis in enumerate(line):
            maps, offset = ((first, second)[n // 3], (-3, 0, 3)[n % 3])
            shown = axis.imshow(
                np.rot90(maps[key][:, :, middle + offset]),
                cmap="inferno" if "cbf" in key else "viridis",
                vmin=0,
                vmax=top,
            )
            axis.set_axis_off()
        method = "least squares" if key.startswith("lsq") else first["method"]
        unit = "CBF, mL/100 g/min" if "cbf" in key else "ATT, s"
        figure.colorbar(shown, ax=line[-1], label=f"{unit}\n{method}")
    axes[0, 1].set_title("odd repeats")
    axes[0, 4].set_title("even repeats")
    figure.savefig(path, dpi=80)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("arguments", nargs="*", help="for asl-app, after --")
    options = parser.parse_args()
    maps = []
    with tempfile.TemporaryDirectory() as folder:
        for parity in (0, 1):
            place = Path(folder) / str(parity)
            half(options.data, place / "data", parity)
            maps.append(run(place / "data", place, options.arguments))
    found = compare(*maps)
    found["machine"] = f"{platform.machine()}, {date.today().isoformat()}"
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if options.figure:
        draw(*maps, options.figure)


if __name__ == "__main__":
    main()
