"""Reading the tables of regions back; one that is damaged is a notice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.anatomy.regions import COLUMNS
from asl_bids_app.anatomy.tables import FIT_ENDING
from asl_bids_app.bids.files import shown
from asl_bids_app.notices import Notice
from asl_bids_app.reports.damage import parse_table, read_object

NEEDED: Final = ("name", "coverage", "cbf_mean")
_CURE: Final = "process the participant again"


@dataclass(frozen=True, eq=False)
class RegionTable:
    """The regions of one atlas in one series.

    Attributes
    ----------
    atlas : str
    names : tuple of str
    columns : mapping of str to array, shape (regions,)
        Numbers by the heads of the table, the names left out; NaN for n/a.
    about : mapping of str to mapping
        What its JSON file says of columns that not every table has.
    """

    atlas: str
    names: tuple[str, ...]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def column(self, key: str) -> np.ndarray:
        """Return a column; NaN where the table has none of that name."""
        return self.columns.get(key, np.full(len(self.names), np.nan))

    def of_tissue(self, key: str, name: str) -> RegionTable | None:
        """Return the flow of one tissue alone as a table; None without partial volume correction.

        Parameters
        ----------
        key
            ``gm`` or ``wm``.
        name
            Of the tissue, in words.
        """
        begin = f"{key}_cbf_"
        flows = {
            column.removeprefix(f"{key}_"): values
            for column, values in self.columns.items()
            if column.startswith(begin)
        }
        if not any(np.isfinite(values).any() for values in flows.values()):
            return None
        flows["coverage"] = self.column("coverage")
        return RegionTable(f"{self.atlas}, {name} alone", self.names, flows)


def find_region_tables(folder: Path, title: str) -> dict[str, Path]:
    """Return the tables of a series by atlas.

    Parameters
    ----------
    folder
        The `perf` folder.
    title
        The entities of the series, as in file names.
    """
    begin = f"{title}_atlas-"
    # Not by a pattern with the title in it: brackets mean something in patterns.
    return {
        path.name.removeprefix(begin).removesuffix(FIT_ENDING): path
        for path in sorted(folder.glob(f"*_atlas-*{FIT_ENDING}"))
        if path.name.startswith(begin)
    }


def read_region_table(path: Path, atlas: str, root: Path) -> RegionTable | Notice:
    """Read the table of one atlas.

    Parameters
    ----------
    path
    atlas
        Its name.
    root
        Messages name the file from here.

    Returns
    -------
    RegionTable or Notice
        A notice of what is wrong with the table, of which nothing is used then.
    """

    def parse(rows: list[list[str]]) -> RegionTable:
        table = _parse(rows, atlas)
        return replace(table, about=_about(table, path, root))

    table, found = parse_table(path, parse)
    if table is not None:
        return table
    expected = f"columns {', '.join(NEEDED)} and a row of numbers or n/a for each region"
    return Notice(shown(path, root), "", found, expected, _CURE)


def _parse(rows: list[list[str]], atlas: str) -> RegionTable:
    """Take a table apart; a ValueError says what was found."""
    header = rows[0] if rows else []
    missing = [name for name in NEEDED if name not in header]
    if missing or len(set(header)) < len(header):
        raise ValueError(f"no column {missing[0]}" if missing else "a column twice")
    short = [number for number, row in enumerate(rows, 1) if len(row) != len(header)]
    if short:
        count = len(rows[short[0] - 1])
        raise ValueError(f"{count} cells in line {short[0]}, {len(header)} columns")
    if len(rows) < 2:
        raise ValueError("no region")
    columns = {}
    for k, name in enumerate(header):
        cells = [row[k] for row in rows[1:]]
        # Columns that not every table has may hold text.
        if name != "name" and (name in COLUMNS or all(map(_is_number, cells))):
            columns[name] = np.array([_number(cell, name) for cell in cells])
    place = header.index("name")
    return RegionTable(atlas, tuple(row[place] for row in rows[1:]), columns)


def _about(table: RegionTable, path: Path, root: Path) -> dict[str, Mapping[str, Any]]:
    """Return what the JSON file beside a table says of columns that `COLUMNS` doesn't describe."""
    others = [key for key in table.columns if key not in COLUMNS]
    content = read_object(path.with_suffix(".json"), {}, root)[0] if others else {}
    return {key: content[key] for key in others if isinstance(content.get(key), Mapping)}


def _is_number(cell: str) -> bool:
    try:
        _number(cell, "")
    except ValueError:
        return False
    return True


def _number(cell: str, title: str) -> float:
    try:
        number = np.nan if cell in {"n/a", ""} else float(cell)
    except ValueError:
        number = np.inf
    if np.isinf(number):
        raise ValueError(f"{cell[:40]!r} in column {title}")
    return number
