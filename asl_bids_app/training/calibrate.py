"""Error bars of a trained ensemble, calibrated on phantoms of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.estimators.uncertainty import SIGNS
from asl_bids_app.training.config import RunConfig
from asl_bids_app.training.dataset import PhantomStore
from asl_bids_app.training.ensembles import RunEnsemble
from asl_bids_app.training.files import seed_of
from asl_bids_app.training.metrics import GROUPS
from asl_bids_app.training.parallel import in_processes
from asl_bids_app.training.scenarios import Scenario, find
from asl_bids_app.training.trials import BATCH, QUANTITIES, signs_of, simulated
from asl_bids_app.training.uncertainty import fit_calibration

log = logging.getLogger(__name__)

_VOXELS: Final = 1_000_000
"""So many voxels make a table."""


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

    Any protocol with the disturbances of the training, and common ones with thermal noise only,
    lest the former widen the error bars of good scans.

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
    scenarios: dict[str, list[str]] = {}
    for name in suitable(config, config.validation.calibration_scenarios):
        scenarios.setdefault(error_bars(find(name)), []).append(name)
    work = [
        (config, run, dataset, device, name, level, _VOXELS // (len(names) * len(levels)))
        for names in scenarios.values()
        for name, level in product(names, levels)
    ]
    found = []
    for (*_, name, level, _), rows in zip(work, in_processes(_look, work, jobs), strict=True):
        log.info("calibration on %s, SNR %g: %d voxels", name, level, len(rows["cbf"]))
        found.append(rows)
    left = iter(found)
    phantoms = len(PhantomStore(dataset / "calibration"))
    members = RunEnsemble(run, device).members
    return {
        word: {
            **_fitted(config, list(islice(left, len(names) * len(levels)))),
            "scenarios": [find(name).title for name in names],
            "snr": list(levels),
            "phantoms": phantoms,
            "members": members,
        }
        for word, names in scenarios.items()
    }


def _look(
    config: RunConfig,
    run: Path,
    dataset: Path,
    device: str,
    name: str,
    level: float,
    voxels: int,
) -> dict[str, np.ndarray]:
    """Return errors and signs of about so many voxels in a scenario at one SNR."""
    ensemble, scenario = RunEnsemble(run, device), find(name)
    store = PhantomStore(dataset / "calibration")
    phantoms = store.first(len(store))
    random = np.random.default_rng(seed_of(config.seed, f"choose of {name}", round(1000 * level)))
    found = []
    for begin in range(0, phantoms.count, BATCH):
        part = phantoms.pick(slice(begin, begin + BATCH))
        # Other scanners at each level: the more there are, the better they say how they differ.
        seed = seed_of(config.seed, f"calibrate {name} at {level:g}", begin)
        batch = simulated(config, scenario, level, part, seed, device)
        row = signs_of(ensemble, batch)
        mask = batch.mask & batch.asked[:, None, None]
        row["tissue"] = batch.tissue[mask].cpu().numpy()
        for quantity in QUANTITIES:
            truth = getattr(batch, quantity)[mask].cpu().numpy()
            row[f"{quantity}_error"] = row[quantity] - truth
        # Fluid has no transit time to speak of; intervals are promised for tissue.
        places = random.permutation(np.flatnonzero(GROUPS["tissue"](row["tissue"])))
        chosen = places[: -(-voxels * part.count // phantoms.count)]
        found.append({key: value[chosen] for key, value in row.items()})
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}


def _fitted(config: RunConfig, rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    every = {key: np.concatenate([part[key] for part in rows]) for key in rows[0]}
    return fit_calibration(
        {name: every[f"{name}_error"] for name in QUANTITIES},
        {name: every[name] for name in SIGNS},
        _balanced(every["tissue"]),
        seed_of(config.seed, "calibrate"),
    )


def _balanced(tissue: np.ndarray) -> np.ndarray:
    """Weigh voxels so that each of the tissues that intervals are promised for counts alike."""
    weight = np.zeros(len(tissue))
    for name in ("grey matter", "white matter", "lesion"):
        chosen = GROUPS[name](tissue)
        weight[chosen] = len(tissue) / (3 * max(1, chosen.sum()))
    return weight
