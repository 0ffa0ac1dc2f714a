"""Draw the bias of regional means from ``benchmarks/results/individuals.json``.

usage: python benchmarks/plot_individuals.py [IMAGE]

One panel for grey matter and one for white matter, one row for each case, one symbol for each
method. By default the image is ``docs/figures/individuals.png``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "individuals.json"
IMAGE: Final = ROOT / "docs" / "figures" / "individuals.png"

TITLES: Final = {
    "L10": "6 delays, SNR 10",
    "L05": "6 delays, SNR 5",
    "L03": "6 delays, SNR 3",
    "D305": "3 delays, SNR 5",
    "S10": "1 delay, SNR 10",
    "S03": "1 delay, SNR 3",
    "SL10": "1 delay, late arrival, SNR 10",
    "PASL05": "PASL, 7 delays, SNR 5",
    "J05": "PCASL + VSASL, SNR 5",
    "STEN05": "stenosis, SNR 5",
    "LATE05": "late arrival, SNR 5",
    "LES05": "lesions, SNR 5",
    "LT05": "T1 of tissue 1.3 s, SNR 5",
    "ART05": "arteries, SNR 5",
    "ARTO10": "arteries, early delays, SNR 10",
    "LAM10": "partition and M0 by tissue, SNR 10",
    "CAL10": "scanner off its sidecar, SNR 10",
}
"""Cases of the simulator, in the order of tables and figure; PCASL where nothing else is said."""
REGIONS: Final = {
    "GM": "grey matter",
    "WM": "white matter",
    "GM beside arteries": "grey matter beside arteries",
}
"""Words for the regions of the results; the others are in words already."""
METHODS: Final = {
    "least squares": "least squares",
    "networks alone": "networks alone",
    "corrected, M0": "default",
}
"""Methods of the figure by their name in the results."""
_STYLES: Final = {
    "least squares": {"marker": "s", "color": "#9a6a00", "markerfacecolor": "none"},
    "networks alone": {"marker": "^", "color": "#5b6b8c", "markerfacecolor": "none"},
    "corrected, M0": {"marker": "o", "color": "#0b5fa5"},
}


def read_rows(path: Path = RESULTS) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the rows of the results by case, region and method."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {(row["case"], row["region"], row["method"]): row for row in rows}


def draw(image: Path) -> None:
    """Write the figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = read_rows()
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(9.2, 5.6), layout="constrained")
    for panel, region in zip(panels, ("GM", "WM"), strict=True):
        words = REGIONS[region]
        panel.axvspan(-5, 5, color="#dfeadf", zorder=0)
        panel.axvline(0, color="0.35", linewidth=0.8)
        for method, label in METHODS.items():
            found = [rows[case, region, method]["bias_percent"] for case in TITLES]
            panel.plot(found, range(len(TITLES)), linestyle="", label=label, **_STYLES[method])
        panel.set_title(words)
        panel.set_xlabel("bias of the mean CBF (%)")
        panel.grid(axis="y", color="0.92")
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(TITLES)), list(TITLES.values()))
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(METHODS), frameon=False)
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGE)
