"""What a folder of derivatives says of itself: `dataset_description.json` and `.bidsignore`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from asl_bids_app import __version__
from asl_bids_app.bids.derivatives import write_json, write_text
from asl_bids_app.bids.uris import RAW

BIDS_VERSION = "1.10.0"
BIDSIGNORE: Final = (
    "*.html",
    "logs/",
    "figures",
    "sub-*/figures",
    "group_*",
    "sub-*/anat",
    "sub-*/ses-*/anat",
    *(
        f"{folder}/*_{suffix}.*"
        for suffix in ("cbf", "att", "abv", "mask", "probseg", "timeseries", "coverage", "xfm")
        for folder in ("sub-*/perf", "sub-*/ses-*/perf")
    ),
)
"""Lines of `.bidsignore`: what the field writes and BIDS has no rule for."""


def describe_dataset(
    output_dir: Path,
    bids_dir: Path,
    source: Mapping[str, Any],
    others: Mapping[str, Path] | None = None,
) -> None:
    """Write `dataset_description.json` and `.bidsignore` of the derivatives.

    Parameters
    ----------
    output_dir, bids_dir
        Roots of derivatives and source.
    source
        `dataset_description.json` of the source.
    others
        Further datasets that files come from, by the names in their URIs. Those that earlier
        runs named stay, for `Sources` of their sidecars do.
    """
    links = {name: path.resolve().as_uri() for name, path in (others or {}).items()}
    links = {**_known_links(output_dir), **links, RAW: _link(output_dir, bids_dir)}
    generated: dict[str, Any] = {
        "Name": "asl-bids-app",
        "Version": __version__,
    }
    container = _container()
    if container:
        generated["Container"] = container
    origin = (
        {"URL": source["DatasetDOI"]}
        if source.get("DatasetDOI")
        else {"URL": bids_dir.resolve().as_uri()}
    )
    description = {
        "Name": f"CBF and ATT of {source.get('Name', bids_dir.name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generated],
        "SourceDatasets": [origin],
        "DatasetLinks": links,
        "HowToAcknowledge": "See logs/*/CITATION.md for the text and references to cite.",
    }
    for field in ("License", "Authors"):
        if source.get(field):
            description[field] = source[field]
    write_json(output_dir / "dataset_description.json", description)
    write_text(output_dir / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")


def _known_links(output_dir: Path) -> dict[str, str]:
    """Return the datasets that an earlier run named; none where nothing can be read."""
    try:
        text = (output_dir / "dataset_description.json").read_text(encoding="utf-8")
        links = json.loads(text)["DatasetLinks"]
        return {str(name): str(link) for name, link in links.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _link(output_dir: Path, bids_dir: Path) -> str:
    """Return where the raw dataset is: relative inside it, else as an absolute URI."""
    output_dir, bids_dir = output_dir.resolve(), bids_dir.resolve()
    if output_dir.is_relative_to(bids_dir):
        return "/".join([".."] * len(output_dir.relative_to(bids_dir).parts))
    return bids_dir.as_uri()


def _container() -> dict[str, str] | None:
    """Return the container's name as its image declares it, if the program runs in one."""
    name = os.environ.get("ASL_APP_CONTAINER_TAG")
    if not name:
        return None
    singular = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    return {"Type": "apptainer" if singular else "docker", "Tag": name}
