"""Slices simulated in a scenario and estimated by every method: the raw material of tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from asl_bids_app.models.uncertainty import FEATURES, calibrated_sds
from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.phantoms.drawing import Phantoms, concatenate
from asl_bids_app.training.phantoms.tissue_codes import CORE
from asl_bids_app.training.simulate.simulation import Batch, simulate
from asl_bids_app.training.validate import baselines
from asl_bids_app.training.validate.baselines import Maps
from asl_bids_app.training.validate.run_ensemble import RunEnsemble
from asl_bids_app.training.validate.scenarios import Scenario, find
from asl_bids_app.training.whole_files import derive_seed

QUANTITIES: Final = ("cbf", "att")
MAPS: Final = ("cbf", "att", "cbf_sd", "att_sd")
BATCH: Final = 16
"""Phantoms simulated at a time."""


@dataclass(frozen=True)
class Voxels:
    """Brain voxels of many slices in a row.

    Attributes
    ----------
    maps : dict
        By method: ``cbf``, ``att``, ``cbf_sd``, ``att_sd``, each of shape (V,); of the network
        all `asl_bids_app.models.uncertainty.FEATURES`.
    truth : dict
        ``cbf`` and ``att``.
    tissue, condition, slice_number : array, shape (V,)
    held_out : array of bool, shape (V,)
        Anatomy of a kind that was held back from training.
    large_lesion : array of bool, shape (V,)
        Lesions where they are three voxels and more across.
    """

    maps: dict[str, dict[str, np.ndarray]]
    truth: dict[str, np.ndarray]
    tissue: np.ndarray
    condition: np.ndarray
    slice_number: np.ndarray
    held_out: np.ndarray
    large_lesion: np.ndarray


def simulated(
    config: RunConfig, scenario: Scenario, snr: float, phantoms: Phantoms, seed: int, device: str
) -> Batch:
    """Simulate slices in a scenario, the same for every model of one seed.

    Scanners and people differ from slice to slice, but are the same at every SNR: with a
    calibration that is off, a table over SNR would otherwise differ by the luck of the draw.
    """
    generator = torch.Generator(device).manual_seed(seed)
    physics = scenario.draw(config.domain, phantoms.count, generator)
    generator.manual_seed(derive_seed(seed, "noise", round(1000 * snr)))
    noise = scenario.noise(config.noise, snr)
    return simulate(phantoms.to(device), physics, noise, generator, config.domain)


def flat(maps: Maps, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """Take the voxels of a mask out of maps."""
    return {name: getattr(maps, name)[mask].cpu().numpy() for name in MAPS}


def estimate_all(
    config: RunConfig, ensemble: RunEnsemble, batch: Batch, known: bool, naive_voxels: int
) -> dict[str, dict[str, np.ndarray]]:
    """Let every method estimate a batch; arrays over the voxels of the slices asked for."""
    seen = batch.observation[batch.asked]
    mask = seen.mask
    posterior = baselines.posterior(seen)
    maps = {
        baselines.STRONG: baselines.strong(seen),
        baselines.SMOOTHED: baselines.smoothed(seen, config.validation.smoothing_fwhm),
        baselines.POSTERIOR: posterior,
    }
    if naive_voxels:
        places = mask.nonzero()
        every = max(1, len(places) // naive_voxels)
        maps[baselines.NAIVE] = baselines.naive(seen, places[::every][:naive_voxels])
    if not known:
        maps[baselines.ORACLE] = baselines.oracle(seen, batch.physics[batch.asked])
    flattened = {method: flat(each, mask) for method, each in maps.items()}
    flattened[baselines.NETWORK] = collect_features(ensemble, batch)
    return {name: flattened[name] for name in baselines.METHODS if name in flattened}


def collect_features(ensemble: RunEnsemble, batch: Batch) -> dict[str, np.ndarray]:
    """Return what the network says of the voxels of the slices asked for, by `FEATURES`' names."""
    found = ensemble.features(batch.observation, batch.asked)
    mask = batch.mask[batch.asked]
    return {name: found[name][mask].cpu().numpy() for name in FEATURES}


def dilate(where: torch.Tensor) -> torch.Tensor:
    """Find the voxels in or beside those of a mask, bool, (B, H, W)."""
    return functional.max_pool2d(where.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0


def large_lesions(tissue: torch.Tensor) -> torch.Tensor:
    """Find lesions where a square of 3x3 voxels fits into them, bool, (B, H, W)."""
    lesion = tissue >= CORE
    return dilate(~dilate(~lesion)) & lesion


def run_scenario(
    config: RunConfig,
    ensemble: RunEnsemble,
    name: str,
    snr: float,
    phantoms: Phantoms,
    held_out: int,
    device: str,
) -> Voxels:
    """Estimate all phantoms in one scenario at one SNR.

    Parameters
    ----------
    config, ensemble
        Of the run.
    name, snr
        Scenario and SNR.
    phantoms
        Test phantoms, those of held-out anatomy last; their inner slices are compared.
    held_out
        How many of them.
    device
        ``cpu``, ``cuda`` or ``mps``.
    """
    scenario = find(name)
    count = phantoms.count
    # A scenario that names its scanner draws none.
    phantoms = concatenate([phantoms] * (config.validation.scanners if scenario.spread else 1))
    batches = range(0, phantoms.count, BATCH)
    naive = -(-config.validation.naive_voxels // len(batches))
    parts: list[dict[str, Any]] = []
    for begin in batches:
        part = phantoms.pick(slice(begin, begin + BATCH))
        seed = derive_seed(config.seed, f"validate {name}", begin)
        batch = simulated(config, scenario, snr, part, seed, device)
        number = begin + torch.arange(part.count).repeat_interleave(part.slices)
        part, number = part[part.inner], number[part.inner]
        mask = part.mask
        number = number[:, None, None].expand_as(mask)[mask]
        parts.append(
            {
                "maps": estimate_all(config, ensemble, batch, scenario.known, naive),
                "cbf": part.cbf[mask].numpy(),
                "att": part.att[mask].numpy(),
                "tissue": part.tissue[mask].numpy(),
                "number": number.numpy(),
                "large": large_lesions(part.tissue)[mask].numpy(),
                "condition": part.condition[:, None, None].expand_as(mask)[mask].numpy(),
            }
        )

    def joined(key: str) -> np.ndarray:
        return np.concatenate([part[key] for part in parts])

    methods = parts[0]["maps"]
    maps = {
        method: {
            key: np.concatenate([part["maps"][method][key] for part in parts])
            for key in methods[method]
        }
        for method in methods
    }
    numbers = joined("number")
    return Voxels(
        maps,
        {key: joined(key) for key in QUANTITIES},
        joined("tissue"),
        joined("condition"),
        numbers,
        numbers % count >= count - held_out,
        joined("large"),
    )


def calibrated(voxels: Voxels, table: dict[str, Any]) -> Voxels:
    """Apply a calibration of the uncertainties to the network's standard deviations."""
    network = dict(voxels.maps[baselines.NETWORK])
    features = {name: torch.from_numpy(network[name]) for name in FEATURES}
    for name, sd in zip(QUANTITIES, calibrated_sds(table, features), strict=True):
        network[f"{name}_sd"] = sd.numpy()
    maps = {**voxels.maps, baselines.NETWORK: network}
    return replace(voxels, maps=maps)
