"""Compare a trained ensemble with the baselines on phantoms that it has never seen."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.run_config import RunConfig, load
from asl_bids_app.training.data.parts import generate_part
from asl_bids_app.training.data.phantom_store import PhantomStore
from asl_bids_app.training.fit.accelerator import describe_device, find_device, full_precision
from asl_bids_app.training.fit.training_run import RunFolder, environment, now
from asl_bids_app.training.phantoms.drawing import CONDITIONS, Phantoms, concatenate
from asl_bids_app.training.progress_lines import ProgressLines
from asl_bids_app.training.validate import baselines
from asl_bids_app.training.validate.calibrate import calibrate, error_bars, suitable
from asl_bids_app.training.validate.run_ensemble import RunEnsemble
from asl_bids_app.training.validate.scenarios import find
from asl_bids_app.training.validate.trials import (
    MAPS,
    QUANTITIES,
    Voxels,
    calibrated,
    run_scenario,
)
from asl_bids_app.training.validate.voxel_errors import GROUPS, LESIONS, UNITS, compare
from asl_bids_app.training.whole_files import write_json
from asl_bids_app.training.worker_processes import in_processes

log = logging.getLogger(__name__)


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
    """Return the test phantoms, held-out anatomy last, and the number with held-out anatomy."""
    for part in ("calibration", "test", "test_held_out"):
        generate_part(config, dataset, part)
    return _test_phantoms(dataset)


def _test_phantoms(dataset: Path) -> tuple[Phantoms, int]:
    stores = [PhantomStore(dataset / part) for part in ("test", "test_held_out")]
    return concatenate([store.first(len(store)) for store in stores]), len(stores[1])


def _cell(
    config: RunConfig,
    run: Path,
    dataset: Path,
    device: str,
    name: str,
    snr: float,
    factors: dict[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Compare all methods in a scenario at one SNR: tables, example voxels, seconds."""
    began = time.monotonic()
    phantoms, held_out = _test_phantoms(dataset)
    ensemble = RunEnsemble(run, device)
    voxels = run_scenario(config, ensemble, name, snr, phantoms, held_out, device)
    # As trained, without the calibration of the uncertainties.
    raw = compare(
        {baselines.NETWORK: voxels.maps[baselines.NETWORK]},
        voxels.truth,
        GROUPS["tissue"](voxels.tissue),
        (),
    )[baselines.NETWORK]
    tables = {
        "groups": tabulate(calibrated(voxels, factors) if factors else voxels),
        "coverage_before_calibration": {
            key: [raw[key].get("coverage_68"), raw[key].get("coverage_95")] for key in QUANTITIES
        },
    }
    return tables, _scatter(voxels, config.seed), time.monotonic() - began


def validate_run(
    run: Path,
    output: Path | None = None,
    dataset: Path | None = None,
    device: str = "auto",
    changes: Sequence[str] = (),
    jobs: int = 1,
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
    jobs
        Processes.

    Returns
    -------
    Path
        The report in words.
    """
    from asl_bids_app.training.validate.validation_report import write_report

    began = time.monotonic()
    folder = RunFolder(run)
    folder.read_config()
    config = load(folder.config, changes, allow_noncritical=True)
    output = output or folder.validation
    dataset = dataset or run / "dataset"
    device = find_device(device)
    full_precision()
    log.info("validating on %s", describe_device(device))
    ensemble = RunEnsemble(run, device)
    scenarios = suitable(config, config.validation.scenarios)
    if not scenarios:
        raise InputError(
            folder.config,
            "validation.scenarios",
            ", ".join(config.validation.scenarios) or "none",
            f"some that {config.network.name} can take, trained on {config.domain.protocol}",
        )
    phantoms, held_out = read_test_phantoms(config, dataset)
    log.info("calibrating the uncertainties")
    factors = calibrate(config, run, dataset, device, jobs)
    write_json(output / "uncertainty_calibration.json", factors)

    cells = list(product(scenarios, config.validation.snr))
    work = [
        (config, run, dataset, device, name, snr, factors.get(error_bars(find(name))))
        for name, snr in cells
    ]
    results: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    with ProgressLines("comparisons", len(cells)) as progress:
        for (name, snr), cell in zip(cells, in_processes(_cell, work, jobs), strict=True):
            scenario = find(name)
            about = {"title": scenario.title, "calibration_known": scenario.known, "snr": {}}
            results.setdefault(name, about)["snr"][f"{snr:g}"], example, seconds = cell
            examples[f"{name} at SNR {snr:g}"] = example
            progress.advance(f"{name}, SNR {snr:g}: {seconds:.0f} s")
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
        "phantoms": {"test": phantoms.count, "of_held_out_anatomy": held_out},
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
