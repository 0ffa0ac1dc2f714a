"""How near an estimator could come that saw all neighbours of a voxel without noise.

    python benchmarks/neighbour_yardstick.py [--scenario joint pcasl] [--snr 3 5 10 20]

A spatial estimator adds to a voxel's own data what its neighbours tell, and it sees them through
noise. Here they are given: a network learns from phantoms, without any signal, the distribution of
a voxel's CBF and ATT given the *true* ones of the 80 voxels of the square of 9x9 around it and of
the 3x3 in the slices below and above. Bayes' rule joins it with the voxel's own noisy data, the
calibration known and thermal noise only; the medians are the estimates. It is of no use but as a
yardstick: what it doesn't reach can hardly be asked of a network that has to read the neighbours
out of noisy data. It is no proof: a better network could foretell a voxel better, and this one
sees no farther than four voxels.

Errors over tissue on phantoms of their own, half of them of anatomy held back, beside those of
strong least squares and of the bundled model on the same voxels.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.members import ANSWERS
from asl_bids_app.models.store import load_model
from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.fit.training_run import environment
from asl_bids_app.training.phantoms.drawing import concatenate, draw
from asl_bids_app.training.validate import baselines
from asl_bids_app.training.validate.scenarios import find
from asl_bids_app.training.validate.trials import BATCH, simulated
from asl_bids_app.training.validate.voxel_errors import GROUPS

SEED = 4711
SIDE, BESIDE = 9, 3
PEAKS = 4
UNIT = torch.tensor([10.0, 0.2])
"""Of the network's numbers: mL/100 g/min, s."""
LEAST = torch.tensor([0.1, 0.003])
"""Smallest standard deviations that it may state."""
GRID = torch.linspace(0.25, 3.85, 1201)


def windows(values, side, hole):
    """Values around every voxel, (B, H, W, side² or one less)."""
    found = functional.unfold(values[:, None], side, padding=side // 2)
    found = found.reshape(len(values), side * side, *values.shape[1:]).permute(0, 2, 3, 1)
    keep = [k for k in range(side * side) if not hole or k != side * side // 2]
    return found[..., keep]


@dataclass
class Rows:
    """Voxels of tissue: what lies around, (V, 2, n), where brain is, (V, n), the truth, (V, 2)."""

    around: Tensor
    there: Tensor
    truth: Tensor


def rows_of(phantoms, chosen):
    """Truth of and around the voxels `chosen` (slice, row, column) of the inner slices."""
    index = phantoms.inner.nonzero().flatten()
    steps = ((0, SIDE), (-1, BESIDE), (1, BESIDE))

    def around(values):
        parts = [windows(values[index + step], side, step == 0)[chosen] for step, side in steps]
        return torch.cat(parts, 1)

    maps = (phantoms.cbf, phantoms.att)
    return Rows(
        torch.stack([around(values) for values in maps], 1),
        around(phantoms.mask.float()),
        torch.stack([values[index][chosen] for values in maps], 1),
    )


def tissue_places(phantoms):
    """Places of the voxels of tissue in the inner slices, as three index tensors."""
    inner = phantoms.tissue[phantoms.inner]
    return torch.from_numpy(GROUPS["tissue"](inner.numpy())).nonzero(as_tuple=True)


class Foreteller(nn.Module):
    """States the distribution of a voxel given its neighbours: a mixture of Gaussians."""

    def __init__(self, width=320):
        super().__init__()
        count = SIDE**2 - 1 + 2 * BESIDE**2
        # The eight nearest of the window's row, from which all else is counted.
        middle = SIDE**2 // 2
        near = [middle + r * SIDE + c for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c]
        self.nearest = [k - (k > middle) for k in near]
        self.layers = nn.Sequential(
            nn.Linear(3 * count + 2, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 5 * PEAKS),
        )

    def forward(self, rows):
        """Logarithms of the weights (V, K), means and standard deviations (V, K, 2)."""
        near = rows.there[:, None, self.nearest]
        mean = (rows.around[..., self.nearest] * near).sum(2) / near.sum(2).clamp(min=1)
        apart = (rows.around - mean[..., None]) * rows.there[:, None] / UNIT[:, None]
        # Beyond a few units only that it is far matters.
        apart = torch.asinh(apart).flatten(1)
        answer = self.layers(torch.cat([apart, rows.there, mean / torch.tensor([50, 1.3])], 1))
        weight, middle, width = answer.split([PEAKS, 2 * PEAKS, 2 * PEAKS], 1)
        middle = mean[:, None] + UNIT * middle.unflatten(1, (PEAKS, 2))
        width = LEAST + UNIT * width.unflatten(1, (PEAKS, 2)).clamp(-8, 4).exp()
        return weight.log_softmax(1), middle, width


def surprise(answer, truth):
    """Minus the logarithm of the density of the truth."""
    weight, middle, width = answer
    off = (truth[:, None] - middle) / width
    density = weight - (0.5 * off.square() + width.log()).sum(2)
    return -density.logsumexp(1)


def trained(phantoms, minutes):
    """Train; the learning rate falls to zero by the clock."""
    torch.manual_seed(SEED)
    network = Foreteller()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-3)
    began, steps, losses = time.monotonic(), 0, []
    while (past := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * past))
        part = phantoms.pick(torch.randint(phantoms.count, (12,)))
        places = tissue_places(part)
        some = torch.randperm(len(places[0]))[:4096]
        rows = rows_of(part, tuple(axis[some] for axis in places))
        loss = surprise(network(rows), rows.truth).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
        losses.append(float(loss.detach()))
        if steps % 500 == 0:
            say(f"{steps} steps, surprise {np.mean(losses[-500:]):.3f}")
    return network.eval(), steps


def say(line):
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def medians(weight, values):
    """Weighted medians (V,) of values (G,) by weights (V, G)."""
    below = weight.cumsum(1)
    place = (below < 0.5 * below[:, -1:]).sum(1).clamp(max=len(values) - 1)
    return values[place]


def joined(answer, signal, trust, curves):
    """Medians of CBF and ATT by Bayes' rule, (V, 2).

    Parameters
    ----------
    answer
        Of the `Foreteller` for V voxels.
    signal, trust : Tensor, shape (V, n)
        ΔM/M0 and its inverse variances.
    curves : Tensor, shape (n, points)
        ΔM/M0 per mL/100 g/min on `GRID`.
    """
    weight, middle, width = (part.double() for part in answer)
    att = GRID.double()
    mean, sd = middle[..., :1], width[..., :1]  # of CBF, (V, K, 1)
    curvature = (trust @ curves.square())[:, None] + sd**-2
    slope = ((trust * signal) @ curves)[:, None] + mean * sd**-2
    best = slope / curvature
    prior = weight[..., None] - sd.log() - width[..., 1:].log() - 0.5 * (mean / sd).square()
    prior = prior - 0.5 * ((att - middle[..., 1:]) / width[..., 1:]).square()
    log_weight = prior + 0.5 * (slope * best - curvature.log())
    share = log_weight.flatten(1).softmax(1)
    # The median of CBF, a mixture of Gaussians, by bisection.
    best, spread = best.flatten(1), curvature.rsqrt().flatten(1)
    low, high = (best.amin(1) - 50, best.amax(1) + 50)
    for _ in range(26):
        half = (low + high) / 2
        over = (share * torch.special.ndtr((half[:, None] - best) / spread)).sum(1) > 0.5
        low, high = torch.where(over, low, half), torch.where(over, half, high)
    return torch.stack(
        [(low + high) / 2, medians(share.unflatten(1, log_weight.shape[1:]).sum(1), att)], 1
    )


def compared(config, network, ensemble, phantoms, name, snr, most):
    """Errors of CBF (mL/100 g/min) and ATT (ms) of the three on the same voxels."""
    random = np.random.default_rng(SEED)
    sums = {label: [] for label in ("strong least squares", "bundled model", "yardstick")}
    for begin in range(0, phantoms.count, BATCH):
        part = phantoms.pick(slice(begin, begin + BATCH))
        batch = simulated(config, find(name), snr, part, SEED + begin, "cpu")
        asked = batch.asked
        seen = batch.observation[asked]
        places = tissue_places(part)
        some = random.permutation(len(places[0]))[: most * part.count // phantoms.count]
        at = tuple(axis[some] for axis in places)
        rows = rows_of(part, at)
        strong = baselines.strong(seen)
        answer = dict(zip(ANSWERS, ensemble.estimate(batch.observation, asked), strict=True))
        curves = seen.response(GRID[None])[0].double()
        signal = seen.delta_m.permute(0, 2, 3, 1)[at].double()
        trust = precision_of(seen.noise_sd).expand_as(seen.delta_m)
        trust = trust.permute(0, 2, 3, 1)[at].double()
        answers = network(rows)
        pieces = torch.arange(len(some)).split(256)
        found = {
            "strong least squares": torch.stack([strong.cbf[at], strong.att[at]], 1),
            "bundled model": torch.stack([answer["cbf"][at], answer["att"][at]], 1),
            "yardstick": torch.cat(
                [joined([x[p] for x in answers], signal[p], trust[p], curves) for p in pieces]
            ),
        }
        for label, estimate in found.items():
            sums[label].append((estimate - rows.truth).abs())
    means = {label: torch.cat(parts).mean(0) for label, parts in sums.items()}
    return {label: [float(m[0]), 1000 * float(m[1])] for label, m in means.items()}


def main():
    """Train, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", nargs="+", default=["joint", "pcasl"])
    parser.add_argument("--snr", nargs="+", type=float, default=[3.0, 5.0, 10.0, 20.0])
    parser.add_argument("--minutes", type=float, default=15.0, help="of training")
    parser.add_argument("--phantoms", type=int, default=4000, help="to learn from")
    parser.add_argument("--test-phantoms", type=int, default=64)
    parser.add_argument("--voxels", type=int, default=16000, help="that are compared")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    config = load("laptop", ())
    ensemble = Ensemble(load_model(), device="cpu", error_bars="noise")
    half = options.test_phantoms // 2
    held_out = draw(replace(config.phantoms, held_out=True), half, SEED + 2)
    tested = concatenate([draw(config.phantoms, options.test_phantoms - half, SEED + 1), held_out])
    network, steps = trained(draw(config.phantoms, options.phantoms, SEED), options.minutes)
    report = {"environment": environment(), "steps": steps, "errors": {}}
    say("MAE of CBF (mL/100 g/min), ATT (ms); in brackets strong least squares over it")
    for name in options.scenario:
        for snr in options.snr:
            with torch.no_grad():
                found = compared(config, network, ensemble, tested, name, snr, options.voxels)
            report["errors"].setdefault(name, {})[f"{snr:g}"] = found
            cbf, att = found["strong least squares"]
            for label, (own_cbf, own_att) in found.items():
                ratios = f"({cbf / own_cbf:.2f}) {own_att:6.0f} ({att / own_att:.2f})"
                say(f"{name}, SNR {snr:g}, {label:22s} {own_cbf:6.2f} {ratios}")
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
