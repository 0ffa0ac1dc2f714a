"""Error bars of a trained ensemble, calibrated on phantoms of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from asl_bids_app.models.uncertainty import FEATURES, KINDS, kind_of
from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.data.phantom_store import PhantomStore
from asl_bids_app.training.progress_lines import ProgressLines
from asl_bids_app.training.validate.calibration_fit import FEWEST, fit_calibration
from asl_bids_app.training.validate.run_ensemble import RunEnsemble
from asl_bids_app.training.validate.scenarios import Scenario, find
from asl_bids_app.training.validate.trials import BATCH, QUANTITIES, collect_features, simulated
from asl_bids_app.training.validate.voxel_errors import GROUPS
from asl_bids_app.training.whole_files import derive_seed
from asl_bids_app.training.worker_processes import in_processes

log = logging.getLogger(__name__)

_VOXELS: Final = 2_000_000
"""So many voxels make a table."""
_ROUNDS: Final = 3
"""Most times that phantoms are measured where each has a protocol of its own."""
_ENOUGH: Final = 480
"""Protocols at each SNR, which that is to make.

Otherwise there would be only a handful with few measurements, or with one way of arrival.
"""
_PROTOCOLS: Final = MappingProxyType(
    {"common": 0.4, "any, thermal noise": 0.4, "any, disturbances": 0.2}
)
"""How much the common protocols count in a table, and any without and with disturbances.

By their numbers alone any protocol would hardly count beside the common ones. Disturbances that
nothing tells from noise, as with few measurements, widen the error bars of good scans.
"""
_SHARES: Final = MappingProxyType({"grey matter": 3 / 7, "white matter": 3 / 7, "lesion": 1 / 7})
"""How much tissues count in a table.

Where noise hides a lesion nothing tells its voxels from those around, whose error bars it widens:
so it counts less than they do, but more than the few per cent of voxels that it has.
"""


def error_bars(scenario: Scenario) -> str:
    """Return what error bars are to hold in a scenario, a word of `ERROR_BARS`."""
    return "noise" if scenario.known else "total"


def suitable(config: RunConfig, names: Sequence[str]) -> list[str]:
    """Return the scenarios that the network of a run can take: all, or those of its protocol."""
    fixed = config.network.name != "PosteriorASLNet"

    def fits(scenario: Scenario) -> bool:
        return scenario.protocol == config.domain.protocol and not scenario.only

    found = [name for name in names if not fixed or fits(find(name))]
    left_out = [name for name in names if name not in found]
    if left_out:
        takes = f"{config.network.name} takes {config.domain.protocol}"
        log.info("left out: %s; %s only", ", ".join(left_out), takes)
    return found


def calibrate(
    config: RunConfig, run: Path, dataset: Path, device: str, jobs: int = 1
) -> dict[str, dict[str, Any]]:
    """Fit the calibration tables of a run, one for each word of `ERROR_BARS`.

    On any protocol and on common ones with thermal noise only, and on any with the disturbances
    of the training; each counts as `_PROTOCOLS` says. A table has a function for each of
    `asl_bids_app.models.uncertainty.KINDS` that there are voxels of.

    Parameters
    ----------
    config
        Settings of the validation.
    run, dataset
        Folders; the dataset's part ``calibration`` is there.
    device
        ``cpu``, ``cuda`` or ``mps``.
    jobs
        Processes.
    """
    levels = config.validation.calibration_snr
    phantoms = len(PhantomStore(dataset / "calibration"))
    scenarios: dict[str, list[str]] = {}
    for name in suitable(config, config.validation.calibration_scenarios):
        scenarios.setdefault(error_bars(find(name)), []).append(name)
    work, words = [], []
    for word, names in scenarios.items():
        cells = [
            cell
            for name in names
            for cell in product([name], levels, range(rounds(find(name), phantoms)))
        ]
        work += [(config, run, dataset, device, *cell, _VOXELS // len(cells)) for cell in cells]
        words += [word] * len(cells)
    found: dict[str, list[dict[str, np.ndarray]]] = {word: [] for word in scenarios}
    samples = zip(words, work, in_processes(_sample_errors, work, jobs), strict=True)
    with ProgressLines("errors for the calibration", len(work)) as progress:
        for word, (*_, name, level, _, _), rows in samples:
            progress.advance(f"{name}, SNR {level:g}: {len(rows['cbf'])} voxels")
            found[word].append(rows)
    fits = [
        (word, kind, rows, derive_seed(config.seed, f"calibrate {kind}"))
        for word, parts in found.items()
        for kind, rows in by_kind(_joined(parts)).items()
    ]
    kinds: dict[str, dict[str, Any]] = {word: {} for word in scenarios}
    tasks = [(rows, seed) for *_, rows, seed in fits]
    with ProgressLines("fits of the calibration", len(tasks)) as progress:
        for (word, kind, *_), fitted in zip(fits, in_processes(_fitted, tasks, jobs), strict=True):
            progress.advance(f"{word}, {kind}")
            kinds[word][kind] = fitted
    members = RunEnsemble(run, device).members
    return {
        word: {
            "kinds": kinds[word],
            "voxels": sum(fitted["voxels"] for fitted in kinds[word].values()),
            "scenarios": [find(name).title for name in names],
            "snr": list(levels),
            "phantoms": phantoms,
            "members": members,
        }
        for word, names in scenarios.items()
    }


def _sample_errors(
    config: RunConfig,
    run: Path,
    dataset: Path,
    device: str,
    name: str,
    level: float,
    turn: int,
    voxels: int,
) -> dict[str, np.ndarray]:
    """Return errors and features of about so many voxels in a scenario at one SNR."""
    ensemble, scenario = RunEnsemble(run, device), find(name)
    store = PhantomStore(dataset / "calibration")
    phantoms = store.first(len(store))
    random = np.random.default_rng(
        derive_seed(config.seed, f"choose of {name}", round(1000 * level), turn)
    )
    found = []
    for begin in range(0, phantoms.count, BATCH):
        part = phantoms.pick(slice(begin, begin + BATCH))
        # Other scanners at each level: the more there are, the better they say how they differ.
        seed = derive_seed(config.seed, f"calibrate {name} at {level:g}", begin, turn)
        batch = simulated(config, scenario, level, part, seed, device)
        row = collect_features(ensemble, batch)
        mask = batch.mask & batch.asked[:, None, None]
        row["tissue"] = batch.tissue[mask].cpu().numpy()
        row["protocols"] = np.full(len(row["tissue"]), rank_protocols(scenario))
        for quantity in QUANTITIES:
            truth = getattr(batch, quantity)[mask].cpu().numpy()
            row[f"{quantity}_error"] = row[quantity] - truth
        # Fluid has no transit time to speak of; intervals are promised for tissue.
        places = random.permutation(np.flatnonzero(GROUPS["tissue"](row["tissue"])))
        chosen = places[: -(-voxels * part.count // phantoms.count)]
        found.append({key: value[chosen] for key, value in row.items()})
    return _joined(found)


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def by_kind(rows: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Part voxels by `KINDS`, leaving out kinds that hardly any voxel is of.

    Raises
    ------
    ValueError
        If that leaves none.
    """
    place = kind_of({name: torch.from_numpy(rows[name]) for name in FEATURES}).numpy()
    parts = {
        kind: {key: value[place == number] for key, value in rows.items()}
        for number, kind in enumerate(KINDS)
    }
    found = {kind: part for kind, part in parts.items() if len(part["tissue"]) >= FEWEST}
    if not found:
        count = len(rows["tissue"])
        raise ValueError(f"calibration: {count} voxels, expected {FEWEST} or more of a kind")
    return found


def _fitted(rows: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    return fit_calibration(
        {name: rows[f"{name}_error"] for name in QUANTITIES},
        {name: rows[name] for name in FEATURES},
        balanced(rows["tissue"], rows["protocols"]),
        seed,
    )


def rounds(scenario: Scenario, phantoms: int) -> int:
    """Return how often so many phantoms are measured in a scenario at each SNR."""
    return 1 if scenario.protocol != "random" else min(_ROUNDS, -(-_ENOUGH // phantoms))


def rank_protocols(scenario: Scenario) -> int:
    """Return which protocols a scenario has: a place in `_PROTOCOLS`."""
    if scenario.protocol != "random":
        return 0
    return 1 if scenario.disturbances == "none" else 2


def balanced(tissue: np.ndarray, protocols: np.ndarray) -> np.ndarray:
    """Weigh voxels so that their protocols count as `_PROTOCOLS`, and tissues as `_SHARES`.

    Parameters
    ----------
    tissue : array of int, shape (V,)
        Codes of `asl_bids_app.training.phantoms.tissue_codes.TISSUES`.
    protocols : array of int, shape (V,)
        By `rank_protocols`. Those that are there share what the others would have counted.

    Returns
    -------
    array, shape (V,)
        With a mean of 1, if all three tissues are there.
    """
    weight = np.zeros(len(tissue))
    there = [number for number in range(len(_PROTOCOLS)) if (protocols == number).any()]
    shares = np.array(list(_PROTOCOLS.values()))
    for number in there:
        for name, share in _SHARES.items():
            chosen = GROUPS[name](tissue) & (protocols == number)
            part = share * shares[number] / shares[there].sum()
            weight[chosen] = part * len(tissue) / max(1, chosen.sum())
    return weight
