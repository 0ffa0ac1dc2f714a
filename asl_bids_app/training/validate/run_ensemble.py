"""The trained members of a run as one estimator of simulated slices, as the app uses them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.members import ANSWERS
from asl_bids_app.models.store import load_model
from asl_bids_app.observation import Observation
from asl_bids_app.training.fit.training_run import RunFolder, load_member, trained_members
from asl_bids_app.training.validate.baselines import Maps


class RunEnsemble:
    """All members of a run folder, flips included, without calibrated uncertainties.

    Parameters
    ----------
    root
        Run folder.
    device
        ``cpu``, ``cuda`` or ``mps``.

    Attributes
    ----------
    members : list of int
    complete : bool
        Whether every member that the configuration asks for is trained to its end.

    Raises
    ------
    InputError
        If no member has weights, or they are of another network.
    """

    def __init__(self, root: Path, device: str) -> None:
        folder = RunFolder(root)
        self.members = trained_members(folder)
        wanted = folder.read_config().training.members
        self.complete = len(self.members) == wanted and all(
            load_member(folder.model(member))["complete"] for member in self.members
        )
        self._ensemble = Ensemble(load_model(root), device=device)

    @torch.no_grad()
    def features(self, observation: Observation, asked: Tensor | None = None) -> dict[str, Tensor]:
        """Return all that is known of every voxel, by the names of `FEATURES`, (B, H, W) each.

        Of the slices that are asked for, bool (B,), if not of all.
        """
        return dict(zip(ANSWERS, self._ensemble.estimate(observation, asked), strict=True))

    def __call__(self, observation: Observation, asked: Tensor | None = None) -> Maps:
        """Return the mean of the members, and the sds by noise and by disagreement together."""
        found = self.features(observation, asked)
        return Maps(*(found[name] for name in ("cbf", "att", "cbf_sd", "att_sd")))
