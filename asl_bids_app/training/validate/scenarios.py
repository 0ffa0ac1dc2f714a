"""Situations in which estimators are compared: a protocol, and what is known of the scanner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import torch
from torch import Generator

from asl_bids_app.errors import InputError
from asl_bids_app.schemes import SCHEMES, Scheme
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.simulate.batch_physics import Kinetics, Physics
from asl_bids_app.training.simulate.physics import draw_physics


@dataclass(frozen=True)
class Scenario:
    """One situation.

    Attributes
    ----------
    title : str
        For tables.
    protocol : str
        ``random`` or a name of `asl_bids_app.training.simulate.schedules.PROTOCOLS`.
    spread : float
        Times the spread of the true calibration about the one that estimators are given; 0:
        the calibration is known.
    random_calibration : bool
        Draw the reported calibration from the ranges of training, or report the defaults.
    t1_blood : float or None
        True T1 of blood, s, whatever is reported.
    efficiency : mapping of Scheme to float
        True labelling efficiencies, whatever is reported.
    only : tuple of int
        Numbers of the measurements of the protocol that are made; empty for all.
    disturbances : str
        ``none``: thermal (Rician) noise only, so that the SNR says it all; ``all``: every slice
        has those of the training; ``training``: as often as in training.
    """

    title: str
    protocol: str
    spread: float = 0.0
    random_calibration: bool = False
    t1_blood: float | None = None
    efficiency: Mapping[Scheme, float] = field(default_factory=lambda: MappingProxyType({}))
    only: tuple[int, ...] = ()
    disturbances: str = "none"

    @property
    def known(self) -> bool:
        """Whether estimators are given the true calibration."""
        return not (self.spread or self.t1_blood or self.efficiency)

    def domain(self, config: DomainConfig) -> DomainConfig:
        """Return the settings that draw this situation's physics."""
        return replace(
            config,
            protocol=self.protocol,
            spread=self.spread,
            exact_chance=0.0,
            nominal_random=self.random_calibration,
            truth_from_ranges=False,
        )

    def noise(self, config: NoiseConfig, snr: float) -> NoiseConfig:
        """Return the settings that draw this situation's noise."""
        chance = {"none": 1.0, "all": 0.0, "training": config.thermal_chance}
        return replace(config, snr=(snr, snr), thermal_chance=chance[self.disturbances])

    def draw(self, config: DomainConfig, n: int, generator: Generator) -> Physics:
        """Draw the physics of n slices."""
        physics = draw_physics(self.domain(config), n, generator)
        truth = physics.truth
        if self.t1_blood is not None:
            same = torch.full_like(truth.t1_blood, self.t1_blood)
            truth = replace(truth, t1_blood=same, t1_tissue=same)
        efficiency = truth.efficiency
        for scheme, value in self.efficiency.items():
            chosen = truth.arrival == int(SCHEMES[scheme].arrival)
            efficiency = torch.where(chosen, value, efficiency)
        uncertainty = torch.full_like(physics.calibration_uncertainty, 0.0 if self.known else 1.0)
        physics = replace(
            physics,
            truth=replace(truth, efficiency=efficiency),
            calibration_uncertainty=uncertainty,
        )
        return _selected(physics, self.only) if self.only else physics


def _selected(physics: Physics, only: tuple[int, ...]) -> Physics:
    """Keep some of the measurements."""
    index = torch.tensor(only, device=physics.valid.device)

    def cut(kinetics: Kinetics) -> Kinetics:
        names = ("arrival", "delay", "label_duration", "efficiency", "vessels")
        return replace(kinetics, **{name: getattr(kinetics, name)[:, index] for name in names})

    return replace(
        physics,
        nominal=cut(physics.nominal),
        truth=cut(physics.truth),
        repeats=physics.repeats[:, index],
        valid=physics.valid[:, index],
    )


_FAR: Final = MappingProxyType({Scheme.PCASL: 0.78, Scheme.VSASL: 0.48})

SCENARIOS: Final = MappingProxyType(
    {
        "joint": Scenario("joint PCASL + VSASL 6+6, calibration known", "joint 6+6"),
        "joint_off": Scenario(
            "joint PCASL + VSASL 6+6, calibration off as scanners are", "joint 6+6", spread=1.0
        ),
        "joint_far": Scenario(
            "joint PCASL + VSASL 6+6, T1 of blood 1.85 s and efficiencies 0.78/0.48 assumed "
            "to be 1.65 s and 0.85/0.56",
            "joint 6+6",
            t1_blood=1.85,
            efficiency=_FAR,
        ),
        "joint_noisy": Scenario(
            "joint PCASL + VSASL 6+6, calibration off, all disturbances",
            "joint 6+6",
            spread=1.0,
            disturbances="all",
        ),
        "pcasl": Scenario("PCASL 6 delays, calibration known", "pcasl 6"),
        "pcasl_off": Scenario(
            "PCASL 6 delays, calibration off as scanners are", "pcasl 6", spread=1.0
        ),
        "pasl": Scenario("PASL 10 delays, calibration known", "pasl 10"),
        "pasl_off": Scenario(
            "PASL 10 delays, calibration off as scanners are", "pasl 10", spread=1.0
        ),
        "vsasl": Scenario("VSASL 6 delays, calibration known", "vsasl 6"),
        "vsasl_off": Scenario(
            "VSASL 6 delays, calibration off as scanners are", "vsasl 6", spread=1.0
        ),
        "single": Scenario("PCASL with one delay of 2 s, calibration known", "pcasl 6", only=(3,)),
        "single_off": Scenario(
            "PCASL with one delay of 2 s, calibration off as scanners are",
            "pcasl 6",
            spread=1.0,
            only=(3,),
        ),
        "random": Scenario(
            "any protocol and calibration, disturbances as in training",
            "random",
            spread=1.0,
            random_calibration=True,
            disturbances="training",
        ),
        "random_known": Scenario(
            "any protocol, calibration known, disturbances as in training",
            "random",
            random_calibration=True,
            disturbances="training",
        ),
        "random_thermal": Scenario(
            "any protocol, calibration known", "random", random_calibration=True
        ),
        "random_thermal_off": Scenario(
            "any protocol, calibration off as scanners are",
            "random",
            spread=1.0,
            random_calibration=True,
        ),
    }
)
"""Situations by name."""


def find(name: str) -> Scenario:
    """Return a scenario.

    Raises
    ------
    InputError
        If there is none of this name.
    """
    if name not in SCENARIOS:
        raise InputError(
            "config", "validation.scenarios", repr(name), f"one of {', '.join(SCENARIOS)}"
        )
    return SCENARIOS[name]
