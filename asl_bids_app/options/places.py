"""Where output may stand."""

from __future__ import annotations

from pathlib import Path


def in_raw_data(dataset: Path, place: Path) -> bool:
    """Tell whether a place is in a dataset, but not in its ``derivatives``.

    Parameters
    ----------
    dataset, place
        Without symbolic links.
    """
    return place == dataset or (
        dataset in place.parents and place.relative_to(dataset).parts[0] != "derivatives"
    )


def advised_output(dataset: Path) -> Path:
    """Return a folder of a dataset where output may stand."""
    return dataset / "derivatives" / "asl-bids-app"
