"""The slices of a registration as a file: written where the images are, read by the report."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.anatomy.views import Slice, Views
from asl_bids_app.wording import title_of

_BROKEN: Final = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    IndexError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def views_file(output_dir: Path, entities: Mapping[str, str]) -> Path:
    """Return where the slices of a series are kept."""
    title = title_of(entities)
    return output_dir / f"sub-{entities['sub']}" / "figures" / f"{title}_desc-anatomy_slices.npz"


def write_views(path: Path, views: Mapping[str, Views], facts: Mapping[str, Any]) -> None:
    """Write the slices of a series, whole or not at all.

    Parameters
    ----------
    path
        Of `views_file`.
    views
        By name, `REGISTRATION` and `TEMPLATE`.
    facts
        What the record says of the anatomy, for a page without a record.
    """
    from asl_bids_app.bids.derivatives import write_whole

    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"facts": dict(facts), "views": {}}
    for name, view in views.items():
        rows = []
        for i, item in enumerate(view.slices):
            rows.append({"axis": item.axis, "number": item.number, "size_mm": item.size_mm})
            arrays |= {f"{name}/{i}/{key}": layer for key, layer in item.layers.items()}
        about["views"][name] = {"slices": rows, "about": dict(view.about)}
    arrays["about"] = np.array(json.dumps(about, default=str))
    with write_whole(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_views(path: Path) -> tuple[dict[str, Views], dict[str, Any]]:
    """Read what `write_views` wrote.

    Returns
    -------
    dict of str to Views, dict
        And the facts.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(str(content["about"]))
            layers: dict[tuple[str, int], dict[str, np.ndarray]] = {}
            for key in content.files:
                if key == "about":
                    continue
                name, number, layer = key.split("/")
                layers.setdefault((name, int(number)), {})[layer] = content[key]
        found = {}
        for name, view in about["views"].items():
            slices = [
                Slice(
                    int(row["axis"]),
                    int(row["number"]),
                    (float(row["size_mm"][0]), float(row["size_mm"][1])),
                    layers[name, i],
                )
                for i, row in enumerate(view["slices"])
            ]
            found[name] = Views(tuple(slices), view["about"])
        return found, dict(about["facts"])
    except _BROKEN as error:
        raise ValueError(f"{path.name}: can't be read ({error})") from error
