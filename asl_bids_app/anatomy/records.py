"""The values that the anatomy steps hand on. No heavy import stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from asl_bids_app.notices import Notice

TISSUES: Final = ("gm", "wm", "csf")


class AnatomyError(ValueError):
    """A T1w can't be used.

    Parameters
    ----------
    found, expected
        In a few words, for one line.
    """

    def __init__(self, found: str, expected: str = "a T1w of a head") -> None:
        self.found = found
        self.expected = expected
        super().__init__(found, expected)

    def __str__(self) -> str:
        return f"{self.found}, expected {self.expected}"


@dataclass(frozen=True, eq=False)
class Head:
    """A T1w image with its brain and tissues, on one grid.

    Attributes
    ----------
    t1w : array of float32, shape (X, Y, Z)
        Corrected for the bias field; any units.
    affine : array, shape (4, 4)
        Voxel to world (mm, RAS).
    brain : array of bool, shape (X, Y, Z)
    gm, wm, csf : array of float32, shape (X, Y, Z)
        Probabilities, zero outside the brain.
    facts : mapping
        Where each part comes from and how good it is, for records and sidecars.
    warnings : tuple of Notice
        One line each.
    """

    t1w: np.ndarray
    affine: np.ndarray
    brain: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Notice, ...] = ()

    def tissue(self) -> np.ndarray:
        """Return the three probabilities, (3, X, Y, Z)."""
        return np.stack([self.gm, self.wm, self.csf])


@dataclass(frozen=True, eq=False)
class Registration:
    """The rigid transform that lays an ASL image on a T1w.

    Attributes
    ----------
    matrix : array, shape (4, 4)
        Takes world points (mm, RAS) of the ASL image to those of the T1w.
    image : str
        The contrast that was chosen, such as ``M0``.
    score : float
        Share of the image's local contrast that the T1w's tissues explain, less the share that
        they explain where they are displaced by a centimetre; 0 to 1.
    error_mm : float
        Expected error of a point at the brain's surface by noise.
    registered : bool
        Whether the transform may be used.
    reason : str
        Why not, in words; empty if it may be.
    facts : mapping
        Scores of every contrast, overlap of the brains, for records and the report.
    warnings : tuple of Notice
    """

    matrix: np.ndarray
    image: str
    score: float
    error_mm: float
    registered: bool
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Notice, ...] = ()

    @property
    def sure(self) -> bool:
        """Whether the pose may be used and nothing is odd about it.

        What an estimator looks at must be: a T1w of another person, or a mirrored one, may pass.
        """
        return self.registered and not self.warnings


@dataclass(frozen=True, eq=False)
class Normalisation:
    """How a head lies to the packaged template.

    Attributes
    ----------
    matrix : array, shape (4, 4)
        Takes points of the template (mm, RAS) to those of the T1w.
    displacement, back : array of float32, shape (X, Y, Z, 3), or None
        On the template's grid, mm: a template point moved by the first goes through `matrix` to
        the T1w; the second undoes the first. None: affine only.
    facts : mapping
        Overlap of tissues, and the range of the determinant.
    """

    matrix: np.ndarray
    displacement: np.ndarray | None
    back: np.ndarray | None
    facts: dict[str, Any] = field(default_factory=dict)
