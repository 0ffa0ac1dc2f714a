"""From the volumes of a time-encoded run to a difference for each sub-bolus and cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from asl_bids_app.bids.encoding import CURE, MATRIX, SIZE, Encoding
from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.errors import InputError
from asl_bids_app.hadamard import Evidence, compare_orders, decode, known_orders
from asl_bids_app.notices import Notice

PARTS: Final = (3, 3, 4)
"""Parts along each axis into which the brain is cut to compare orders."""
FEWEST_VOXELS: Final = 5
FEWEST_REGIONS: Final = 6
ODD: Final = 0.2
"""Share of the energy that a given matrix may leave unexplained, beside noise, untold."""
TRANSIT: Final = np.arange(0.1, 3.6, 0.05)
SPREADS: Final = (0.0, 0.15, 0.3, 0.45)
"""Seconds: transit times and their standard deviations in a region."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Volumes that can be averaged like differences of the scanner.

    Attributes
    ----------
    data : array, shape (X, Y, Z, cycles * (N - 1))
        ΔM of each sub-bolus and cycle, in the units of the image.
    volume_types : tuple of str
        All ``deltam``.
    post_labeling_delay, label_duration : array
        Seconds, by volume.
    names : tuple of str
        What messages call each volume.
    facts : mapping
    warnings : tuple of Notice
    """

    data: np.ndarray
    volume_types: tuple[str, ...]
    post_labeling_delay: np.ndarray
    label_duration: np.ndarray
    names: tuple[str, ...]
    facts: Mapping[str, Any]
    warnings: tuple[Notice, ...]


def decode_run(run: PlannedRun, data: np.ndarray, mask: np.ndarray) -> Decoded:
    """Decode a run.

    Parameters
    ----------
    run
        A run with an `Encoding`.
    data : array, shape (X, Y, Z, n_volumes)
    mask : array of bool, shape (X, Y, Z)
        The brain.

    Raises
    ------
    InputError
        If neither sidecar nor data tell the order of the matrix's rows.
    """
    encoding = _encoding_of(run)
    orders = encoding.orders or known_orders(encoding.size)
    evidence = _evidence(run, data, mask, orders)
    order = orders[0]
    warnings: list[Notice] = []
    sidecar = run.acquisition.sidecar
    if len(orders) > 1:
        clear = _clear_evidence(run, evidence)
        order = clear.order
        found = "a matrix with two readings" if encoding.orders else "nothing"
        outcome = (
            f"taken from the data: {order.name}, which explains {clear.explained:.1%} of the "
            "differences and rules out all others known"
        )
        warnings.append(Notice(sidecar, MATRIX, found, "the order of the encoding", outcome))
    elif evidence and 1 - evidence.explained > ODD + 2 * (1 - evidence.expected):
        found = f"a matrix that explains {evidence.explained:.0%} of the differences"
        cure = "check its rows and the times of the sub-boli"
        warnings.append(Notice(sidecar, MATRIX, found, "nearly all", cure))
    blocks = encoding.size - 1
    decoded = [
        encoding.sign * decode(data[..., list(cycle)], order.blocks, encoding.uniform)
        for cycle in encoding.cycles
    ]
    names = [
        f"the difference decoded from {cycle[0]} to {cycle[-1]}"
        for cycle in encoding.cycles
        for _ in range(blocks)
    ]
    count = len(encoding.cycles)
    facts = {
        "matrix": f"{encoding.word}, size {encoding.size}",
        "order": order.name,
        "cycles": count,
        "explained": round(evidence.explained, 4) if evidence else None,
    }
    return Decoded(
        np.concatenate(decoded, axis=3),
        ("deltam",) * (count * blocks),
        np.tile(encoding.post_labeling_delay, count),
        np.tile(encoding.label_duration, count),
        tuple(names),
        facts,
        tuple(warnings),
    )


def _encoding_of(run: PlannedRun) -> Encoding:
    encoding = run.acquisition.encoding
    assert encoding is not None, "only time-encoded runs are decoded"
    return encoding


def _clear_evidence(run: PlannedRun, evidence: Evidence | None) -> Evidence:
    """Return the evidence if it is clear.

    Raises
    ------
    InputError
        If it isn't.
    """
    encoding = _encoding_of(run)
    why = "too few voxels"
    if evidence:
        why = f"{evidence.explained:.0%} explained by the best one, {evidence.order.name}"
        if evidence.rivals:
            why += f"; {len(evidence.rivals)} others not ruled out"
        walsh = encoding.word == "Walsh" and not encoding.orders
        if evidence.clear and (evidence.order.walsh or not walsh):
            return evidence
    size = encoding.size
    form = (
        f"{size} rows, one for each volume, of {size - 1} values 1 or -1, one for each sub-bolus"
    )
    cure = f"give {MATRIX} as {form}; or {CURE}"
    raise InputError(
        run.acquisition.sidecar,
        MATRIX if encoding.orders else SIZE,
        "time-encoded volumes that are not decoded, in an order that neither sidecar nor data "
        f"show ({why})",
        "the encoding matrix",
        cure,
    )


def _evidence(
    run: PlannedRun, data: np.ndarray, mask: np.ndarray, orders: tuple[Any, ...]
) -> Evidence | None:
    """Compare orders on the mean cycle; None if the brain is too small."""
    encoding = _encoding_of(run)
    mean = np.mean([data[mask][:, list(cycle)] for cycle in encoding.cycles], axis=0)
    region, late = _regions(run, mask)
    rough = decode(mean, orders[0].blocks, encoding.uniform)
    values, noise, shift = [], [], []
    for each in np.unique(region):
        here = region == each
        count = int(here.sum())
        if count < FEWEST_VOXELS:
            continue
        values.append(mean[here].mean(axis=0, dtype=np.float64))
        # What differs inside a region counts as noise: too much rather than too little.
        spread = rough[here].var(axis=0, ddof=1, dtype=np.float64).mean()
        noise.append(spread * encoding.size / 4 / count)
        shift.append(float(late[here].mean()))
    if len(values) < FEWEST_REGIONS:
        return None
    # An all-label volume turns the sign of all differences.
    regions = encoding.sign * np.array(values)
    response = np.stack([_response(run, t) for t in np.unique(np.round(shift, 6))])
    which = np.unique(np.round(shift, 6), return_inverse=True)[1].ravel()
    chosen = response if len(response) == 1 else response[which]
    return compare_orders(regions, np.array(noise), chosen, orders, encoding.uniform)


def _regions(run: PlannedRun, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut the voxels of the mask into regions; return each one's region and slice time."""
    acquisition = run.acquisition
    places = np.argwhere(mask)
    late = acquisition.slice_time[places[:, acquisition.slice_axis]]
    by_slice = bool(np.any(acquisition.slice_time))
    region = np.zeros(len(places), int)
    for axis, number in enumerate((2, 2, 2) if by_slice else PARTS):
        place = places[:, axis]
        if axis == acquisition.slice_axis and by_slice:
            # Slices differ in delay: none is mixed with another.
            index = place
        else:
            edges = np.quantile(place, np.linspace(0, 1, number + 1)[1:-1])
            index = np.searchsorted(edges, place, side="left")
        region = region * (int(index.max()) + 1) + index
    return region, late


def _response(run: PlannedRun, slice_time: float) -> np.ndarray:
    """Return the signal of each sub-bolus for all kinds of transit, (N - 1, A)."""
    import torch

    from asl_bids_app.kinetics import tissue_response
    from asl_bids_app.schemes import SCHEMES

    encoding, calibration = _encoding_of(run), run.calibration
    steps = np.linspace(-2, 2, 9)
    weight = np.exp(-(steps**2) / 2) / np.exp(-(steps**2) / 2).sum()
    spread = np.array(SPREADS)[:, None, None]
    att = np.maximum(TRANSIT[None, :, None] + spread * steps, 0.05)

    def column(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.asarray(values, float)).reshape(-1, 1, 1, 1)

    signal = tissue_response(
        torch.tensor(int(SCHEMES[run.acquisition.scheme].arrival)),
        column(encoding.post_labeling_delay + slice_time),
        column(encoding.label_duration),
        torch.tensor(1.0, dtype=torch.float64),
        calibration.t1_blood.value,
        calibration.t1_tissue.value,
        calibration.partition_coefficient.value,
        torch.tensor(att)[None],
    )
    return (signal.numpy() @ weight).reshape(len(encoding.label_duration), -1)
