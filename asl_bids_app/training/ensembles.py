"""The trained members of a run as one estimator of simulated slices."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from asl_bids_app.errors import InputError
from asl_bids_app.observation import Observation
from asl_bids_app.training.baselines import Maps
from asl_bids_app.training.members import build_member
from asl_bids_app.training.run_folder import RunFolder, load_member, trained_members


class RunEnsemble:
    """All members of a run folder.

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
        config = folder.read_config()
        self.members = trained_members(folder)
        if not self.members:
            raise InputError(
                root, "trained_models", "no weights", "members trained by asl-train fit"
            )
        self.networks: list[nn.Module] = []
        self.complete = len(self.members) == config.training.members
        for member in self.members:
            content = load_member(folder.model(member))
            network = build_member(config)
            network.load_state_dict(content["model_state_dict"])
            self.networks.append(network.to(device).eval())
            self.complete &= bool(content["complete"])

    @torch.no_grad()
    def __call__(self, observation: Observation) -> Maps:
        """Return the mean of the members, and the sds by noise and by disagreement together."""
        found = [network(observation) for network in self.networks]
        means, sds = [], []
        for name in ("cbf", "att"):
            values = torch.stack([getattr(estimate, name) for estimate in found])
            log_sd = torch.stack([getattr(estimate, f"{name}_log_sd") for estimate in found])
            variance = log_sd.mul(2).exp().mean(0) + values.var(0, unbiased=False)
            means.append(values.mean(0))
            sds.append(variance.sqrt() * observation.mask)
        return Maps(*means, *sds)
