"""The scripts that submit phantoms, training, validation and export to SLURM."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from asl_bids_app.errors import InputError

SCRIPTS: Final = Path(__file__).with_name("slurm")
"""Where they are installed; ``training/`` of a checkout links to them."""


def write_scripts(folder: Path) -> list[Path]:
    """Copy the scripts into a folder.

    Parameters
    ----------
    folder
        Made if need be.

    Returns
    -------
    list of Path
        The scripts.

    Raises
    ------
    InputError
        If a script of that name is there with other content, which may be somebody's work.
    """
    sources = sorted(SCRIPTS.glob("*.sh"))
    for source in sources:
        target = folder / source.name
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise InputError(
                target,
                "",
                "another script",
                "none, or that of this version",
                "give another folder, or remove it",
            )
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copyfile(source, folder / source.name)
        (folder / source.name).chmod(0o755)
    return [folder / source.name for source in sources]
