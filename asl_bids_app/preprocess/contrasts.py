"""Which volumes of a run share a contrast, and where they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from asl_bids_app.wording import seconds


@dataclass(frozen=True)
class Group:
    """Volumes of one contrast."""

    name: str
    volumes: tuple[int, ...]


def contrast_groups(
    kinds: Sequence[str], delay: np.ndarray | None, duration: np.ndarray | None
) -> list[Group]:
    """Sort volumes by contrast; differences and maps show no anatomy to register."""
    members: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        if kind in {"control", "label"}:
            parts = [
                f"{word} {seconds(float(values[index]))}"
                for word, values in (("delay", delay), ("duration", duration))
                if values is not None
            ]
            members.setdefault(", ".join(parts) or "control and label", []).append(index)
        elif kind == "m0scan":
            members.setdefault("M0", []).append(index)
    return [Group(name, tuple(volumes)) for name, volumes in members.items()]


def compared_voxels(
    data: np.ndarray,
    affine: np.ndarray,
    groups: Sequence[Group],
    kinds: Sequence[str],
    mask: np.ndarray | None,
) -> np.ndarray:
    """Return the voxels that registrations look at: the brain and its rim."""
    from asl_bids_app.preprocess.mask import MaskError, brain_mask

    if mask is None:
        names = [g.name for g in groups]
        kind = "M0" if "M0" in names else "control"
        chosen = [i for i, k in enumerate(kinds) if k == {"M0": "m0scan"}.get(kind, kind)]
        chosen = chosen or list(groups[0].volumes)
        mean = np.nan_to_num(data[..., chosen]).mean(axis=3)
        try:
            mask = brain_mask(mean, affine)
        except MaskError:
            mask = mean > 0.2 * np.percentile(mean, 98)
    if not np.any(mask):
        mask = np.ones(data.shape[:3], bool)
    return ndimage.binary_dilation(mask, iterations=1)


def main_group(groups: Sequence[Group], averages: Sequence[np.ndarray], mask: np.ndarray) -> int:
    """Choose the group with most volumes, of equals the one with the strongest signal."""
    ranks = [
        (len(g.volumes), float(a[mask].mean())) for g, a in zip(groups, averages, strict=True)
    ]
    return ranks.index(max(ranks))
