"""Writing BIDS derivatives: whole files or none, each with its sidecar."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.atomic import PARTIAL, complete_file
from asl_bids_app.bids.outputs import Output
from asl_bids_app.errors import Cause, InputError, disk_full


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Write a derivative by `complete_file`, and put a failure into words.

    Raises
    ------
    InputError
        If the folder can't be written to, or the disk is full.
    """
    begun = False
    try:
        with complete_file(path) as beside:
            begun = True
            yield beside
    except OSError as error:
        if not begun:
            raise unwritable(path.parent, error, "a writable folder") from error
        expected = "room on the disk, and no folder of that name"
        raise unwritable(path, error, expected) from error


def unwritable(path: Path, error: OSError, expected: str, field: str = "") -> InputError:
    """Return the error that something can't be written; a full disk is called one."""
    if words := disk_full(error):
        cure = "make room, or give other folders (output_dir, --work-dir), and run it again"
        found = f"a full disk ({words})"
        return InputError(path, field, found, "room to write", cure, Cause.DISK_FULL)
    cure = "mount it writable, or give another" if field else ""
    found = f"no way to write {'there' if field else 'it'} ({error.strerror or error})"
    return InputError(path, field, found, expected, cure, Cause.NOT_WRITABLE)


def remove_partial(folder: Path) -> None:
    """Remove what a killed run left half-written under a folder."""
    for path in folder.rglob(f"{PARTIAL}*"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_whole(path) as beside:
        # Names of files may hold bytes that are no text; in JSON they are escapes of their own.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all; numbers that aren't finite become null."""
    write_text(path, json.dumps(_plain(content), indent=2, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a BIDS table (tab separated, ``n/a`` for what is missing)."""

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
            return "n/a"
        return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)

    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(columns)
    table.writerows([cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    write_text(path, text.getvalue())


def sidecar_path(path: Path) -> Path:
    """Return the JSON file beside an image or a table."""
    stem = path.name
    for extension in (".nii.gz", ".nii", ".tsv"):
        stem = stem.removesuffix(extension)
    return path.with_name(f"{stem}.json")


def space_code(space: str) -> int:
    """Return the code by which NIfTI's qform and sform say whose millimetres an image has.

    Parameters
    ----------
    space
        The ``space`` entity; empty for the scanner's own.

    Returns
    -------
    int
        1 for the scanner's, 4 for MNI152, 2 for those of another image, such as the T1w.

    Examples
    --------
    >>> space_code(""), space_code("T1w"), space_code("MNI152NLin2009cAsym")
    (1, 2, 4)
    """
    if not space:
        return 1
    return 4 if space.startswith("MNI152") else 2


def write_image(
    folder: Path,
    entities: Mapping[str, str],
    output: Output,
    data: np.ndarray,
    affine: np.ndarray,
    sidecar: Mapping[str, Any],
) -> Path:
    """Write an image of the output table with its sidecar.

    Parameters
    ----------
    folder
        The `perf` folder.
    entities
        Of the series.
    output
        Row of the table.
    data : array, shape (X, Y, Z) or (X, Y, Z, n)
        Written as float32, or as uint8 if it is boolean or uint8.
    affine : array, shape (4, 4)
    sidecar
        What the sidecar says beside `Units` and `Description`.

    Returns
    -------
    Path
        The image.
    """
    path = folder / output.name(entities)
    content = {"Units": output.units, "Description": output.description, **sidecar}
    save_image(path, data, affine, entities.get("space", ""), content)
    return path


def save_image(
    path: Path, data: np.ndarray, affine: np.ndarray, space: str, sidecar: Mapping[str, Any]
) -> None:
    """Write an image with its sidecar.

    Parameters
    ----------
    path
    data : array, shape (X, Y, Z) or (X, Y, Z, n)
        Written as float32, or as it is if it is boolean or of small whole numbers.
    affine : array, shape (4, 4)
    space
        The ``space`` entity; empty for the scanner's own.
    sidecar
        All that the sidecar says.
    """
    import nibabel as nib

    kinds = {np.dtype(bool): np.uint8, np.dtype(np.uint8): np.uint8, np.dtype(np.int16): np.int16}
    image = nib.Nifti1Image(data.astype(kinds.get(data.dtype, np.float32)), affine)
    image.header.set_xyzt_units("mm", "sec")
    code = space_code(space)
    image.set_qform(affine, code=code)
    image.set_sform(affine, code=code)
    with write_whole(path) as beside:
        nib.save(image, beside)
        # Just before the image appears, which is never seen without what its numbers mean.
        write_json(sidecar_path(path), sidecar)


def perf_folder(output_dir: Path, entities: Mapping[str, str]) -> Path:
    """Return the folder of a series' derivatives."""
    folder = output_dir / f"sub-{entities['sub']}"
    if "ses" in entities:
        folder /= f"ses-{entities['ses']}"
    return folder / "perf"
