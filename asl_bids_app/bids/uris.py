"""Files as BIDS names them: by the dataset that they lie in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

RAW: Final = "raw"
"""What `DatasetLinks` calls the dataset that a run reads."""
TEMPLATEFLOW: Final = "templateflow"


def dataset_uri(path: Path, datasets: Mapping[str, Path]) -> str:
    """Return a file's URI, as `Sources` of a sidecar has it.

    Parameters
    ----------
    path
    datasets : mapping of str to Path
        Roots by their names in `DatasetLinks`; that of the dataset itself has the name ``""``.

    Returns
    -------
    str
        ``bids:<name>:<path in the dataset>``, by the innermost dataset that holds the file; its
        place (``file:``) where none does.

    Examples
    --------
    >>> dataset_uri(Path("/data/prep/sub-01/anat/x.nii.gz"), {"fmriprep": Path("/data/prep")})
    'bids:fmriprep:sub-01/anat/x.nii.gz'
    >>> dataset_uri(Path("/atlases/x.nii.gz"), {"": Path("/out")})
    'file:///atlases/x.nii.gz'
    """
    path = path.absolute()
    roots = {name: root.absolute() for name, root in datasets.items()}
    holding = [name for name, root in roots.items() if path.is_relative_to(root)]
    if not holding:
        return path.as_uri()
    # The dataset itself comes last: a name of its own is clearer where two have one root.
    name = max(holding, key=lambda name: (len(roots[name].parts), name != ""))
    return f"bids:{name}:{path.relative_to(roots[name]).as_posix()}"


def add_sources(
    sources: Iterable[str], paths: Iterable[Path], datasets: Mapping[str, Path]
) -> list[str]:
    """Return `Sources` with further files, each once."""
    return list(dict.fromkeys([*sources, *(dataset_uri(path, datasets) for path in paths)]))
