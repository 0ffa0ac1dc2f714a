"""Compare a trained ensemble with the baselines on phantoms that it has never seen."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.estimators.uncertainty import SIGNS
from asl_bids_app.training import baselines
from asl_bids_app.training.config import RunConfig, load
from asl_bids_app.training.dataset import PhantomStore
from asl_bids_app.training.ensembles import RunEnsemble
from asl_bids_app.training.files import seed_of, write_json
from asl_bids_app.training.metrics import GROUPS, LESIONS, UNITS, compare
from asl_bids_app.training.parts import generate_part
from asl_bids_app.training.phantoms import CONDITIONS, Phantoms, concatenate
from asl_bids_app.training.run_folder import RunFolder, environment, now
from asl_bids_app.training.scenarios import Scenario, find
from asl_bids_app.training.speed import find_device
from asl_bids_app.training.trials import (
    BATCH,
    MAPS,
    QUANTITIES,
    Voxels,
    calibrated,
    run_scenario,
    signs_of,
    simulated,
)
from asl_bids_app.training.uncertainty import fit_calibration

log = logging.getLogger(__name__)

_CALIBRATION_VOXELS: Final = 1_000_000


def error_bars(scenario: Scenario) -> str:
    """Return what error bars are to hold in a scenario, a word of `ERROR_BARS`."""
    return "noise" if scenario.known else "total"


def calibrate(
    config: RunConfig, ensemble: RunEnsemble, phantoms: Phantoms, device: str
) -> dict[str, dict[str, Any]]:
    """Fit the calibration tables on phantoms of their own, one for each word of `ERROR_BARS`.

    Any protocol with the disturbances of the training, and common ones with thermal noise only,
    lest the former widen the error bars of good scans.
    """
    by_word: dict[str, list[Scenario]] = {}
    for name in config.validation.calibration_scenarios:
        scenario = find(name)
        by_word.setdefault(error_bars(scenario), []).append(scenario)
    return {
        word: _calibrate(config, ensemble, phantoms, device, scenarios)
        for word, scenarios in by_word.items()
    }


def _calibrate(
    config: RunConfig,
    ensemble: RunEnsemble,
    phantoms: Phantoms,
    device: str,
    scenarios: Sequence[Scenario],
) -> dict[str, Any]:
    found: list[dict[str, np.ndarray]] = []
    levels = config.validation.calibration_snr
    random = np.random.default_rng(seed_of(config.seed, "calibrate"))
    share = _CALIBRATION_VOXELS / (len(scenarios) * len(levels) * len(phantoms))
    for scenario, level in product(scenarios, levels):
        for begin in range(0, len(phantoms), BATCH):
            part = phantoms[begin : begin + BATCH]
            seed = seed_of(config.seed, f"calibrate {scenario.title} at {level:g}", begin)
            batch = simulated(config, scenario, level, part, seed, device)
            mask = batch.observation.mask
            row = signs_of(ensemble, batch.observation)
            tissue = batch.tissue[mask].cpu().numpy()
            for name in QUANTITIES:
                row[f"{name}_error"] = row[name] - getattr(batch, name)[mask].cpu().numpy()
            row["tissue"] = tissue
            # Fluid has no transit time to speak of; intervals are promised for tissue.
            places = random.permutation(np.flatnonzero(GROUPS["tissue"](tissue)))
            chosen = places[: round(share * len(part))]
            found.append({key: value[chosen] for key, value in row.items()})
    every = {key: np.concatenate([part[key] for part in found]) for key in found[0]}
    table = fit_calibration(
        {name: every[f"{name}_error"] for name in QUANTITIES},
        {name: every[name] for name in SIGNS},
        _balanced(every["tissue"]),
        seed_of(config.seed, "calibrate"),
    )
    return {
        **table,
        "scenarios": [scenario.title for scenario in scenarios],
        "snr": list(levels),
        "phantoms": len(phantoms),
        "members": ensemble.members,
    }


def _balanced(tissue: np.ndarray) -> np.ndarray:
    """Weigh voxels so that each of the tissues that intervals are promised for counts alike."""
    weight = np.zeros(len(tissue))
    for name in ("grey matter", "white matter", "lesion"):
        chosen = GROUPS[name](tissue)
        weight[chosen] = len(tissue) / (3 * max(1, chosen.sum()))
    return weight


def _groups(voxels: Voxels) -> dict[str, np.ndarray]:
    """Return the groups of voxels that tables are made for, by name."""
    groups = {name: choose(voxels.tissue) for name, choose in GROUPS.items()}
    tissue = groups["tissue"]
    groups["lesion, 3 voxels and more across"] = voxels.large_lesion
    groups["tissue of held-out anatomy"] = tissue & voxels.held_out
    for code, name in enumerate(CONDITIONS):
        groups[f"tissue, {name}"] = tissue & (voxels.condition == code)
    for name, code in LESIONS.items():
        groups[f"lesion: {name}"] = voxels.tissue == code
    return {name: chosen for name, chosen in groups.items() if chosen.any()}


def tabulate(voxels: Voxels) -> dict[str, Any]:
    """Compare all methods in all groups of voxels."""
    rivals = (baselines.NETWORK, baselines.STRONG)
    return {
        name: compare(voxels.maps, voxels.truth, chosen, rivals)
        for name, chosen in _groups(voxels).items()
    }


def read_test_phantoms(config: RunConfig, dataset: Path) -> tuple[Phantoms, int]:
    """Return the test phantoms, held-out anatomy last, and how many of those there are."""
    for part in ("calibration", "test", "test_held_out"):
        generate_part(config, dataset, part)
    stores = [PhantomStore(dataset / part) for part in ("test", "test_held_out")]
    return concatenate([store.first(len(store)) for store in stores]), len(stores[1])


def validate_run(
    run: Path,
    output: Path | None = None,
    dataset: Path | None = None,
    device: str = "auto",
    changes: Sequence[str] = (),
) -> Path:
    """Validate the ensemble of a run folder.

    Parameters
    ----------
    run
        Run folder.
    output
        Folder for the results; ``validation_results`` of the run if not given.
    dataset
        Phantoms; parts that are missing are made. ``dataset`` of the run if not given.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    changes
        Overrides of the validation's settings, as for ``--set``.

    Returns
    -------
    Path
        The report in words.
    """
    from asl_bids_app.training.validation_report import write_report

    began = time.monotonic()
    folder = RunFolder(run)
    folder.read_config()
    config = load(folder.config, changes, allow_noncritical=True)
    output = output or folder.validation
    dataset = dataset or run / "dataset"
    device = find_device(device)
    ensemble = RunEnsemble(run, device)
    phantoms, held_out = read_test_phantoms(config, dataset)
    calibration = PhantomStore(dataset / "calibration")
    log.info("calibrating the uncertainties on %d phantoms", len(calibration))
    factors = calibrate(config, ensemble, calibration.first(len(calibration)), device)
    write_json(output / "uncertainty_calibration.json", factors)

    results: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    for name in config.validation.scenarios:
        scenario = find(name)
        results[name] = {"title": scenario.title, "calibration_known": scenario.known, "snr": {}}
        for snr in config.validation.snr:
            started = time.monotonic()
            voxels = run_scenario(config, ensemble, name, snr, phantoms, held_out, device)
            tables = tabulate(calibrated(voxels, factors[error_bars(scenario)]))
            # As trained, without the calibration of the uncertainties.
            raw = compare(
                {baselines.NETWORK: voxels.maps[baselines.NETWORK]},
                voxels.truth,
                GROUPS["tissue"](voxels.tissue),
                (),
            )[baselines.NETWORK]
            results[name]["snr"][f"{snr:g}"] = {
                "groups": tables,
                "coverage_before_calibration": {
                    key: [raw[key].get("coverage_68"), raw[key].get("coverage_95")]
                    for key in QUANTITIES
                },
            }
            examples[f"{name} at SNR {snr:g}"] = _scatter(voxels, config.seed)
            log.info("%s, SNR %g: %.0f s", name, snr, time.monotonic() - started)
    report = {
        "schema": 1,
        "made": now(),
        "model": {
            "config": config.name,
            "config_sha256": folder.read_config().digest(),
            "network": config.network.name,
            "members": ensemble.members,
            "complete": ensemble.complete,
            "noncritical_settings": config.noncritical(),
        },
        "phantoms": {"test": len(phantoms), "of_held_out_anatomy": held_out},
        "units": dict(UNITS),
        "methods": list(baselines.METHODS),
        "scenarios": results,
        "environment": environment(),
        "seconds": round(time.monotonic() - began, 1),
    }
    return write_report(output, report, examples)


def _scatter(voxels: Voxels, seed: int, count: int = 400) -> dict[str, Any]:
    """Pick some voxels of tissue for interactive plots."""
    places = np.flatnonzero(GROUPS["tissue"](voxels.tissue))
    random = np.random.default_rng(seed)
    places = np.sort(random.permutation(places)[:count])
    rounded = {
        method: {key: [round(float(v), 4) for v in maps[key][places]] for key in MAPS}
        for method, maps in voxels.maps.items()
    }
    truth = {key: [round(float(v), 4) for v in voxels.truth[key][places]] for key in QUANTITIES}
    return {
        "truth": truth,
        "tissue": voxels.tissue[places].tolist(),
        "estimates": rounded,
    }
