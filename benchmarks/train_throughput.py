"""Slices a second a core that each network trains on, and the fraction of the peak.

A step is what training does: phantoms from a pool, simulation, the parts without weights,
forward, backward, optimiser. Times are processor time of one thread. The peak is that of a
large matrix product in the same run and number format.

    python benchmarks/train_throughput.py [--seconds 5] [--eager] [--float32]
"""

import argparse
import json
import time
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from asl_bids_app.networks import build_network
from asl_bids_app.networks.spatial import ChannelNetwork, Standardisation
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.fit.losses import losses
from asl_bids_app.training.fit.trunk_speed import speed_up
from asl_bids_app.training.phantoms.drawing import draw
from asl_bids_app.training.simulate.physics import draw_physics
from asl_bids_app.training.simulate.simulation import simulate

CASES = (
    # name, arguments, protocol, pixels, goal in slices a second a core
    ("PosteriorASLNet", {}, "random", 48, 100),
    ("SpatialASLNet", {"features": [24, 48, 96, 192]}, "joint 6+6", 64, 24),
    ("SpatialASLNet", {}, "joint 6+6", 64, None),
    ("DualEncoderSpatialASLNet", {}, "joint 6+6", 64, None),
)
BATCH = 16


def rate(work, seconds):
    """Calls per second of processor time, at least three calls."""
    count, start = 0, time.process_time()
    while count < 3 or time.process_time() - start < seconds:
        work()
        count += 1
    return count / (time.process_time() - start)


def peak(dtype, size=1536):
    """Operations a second of a matrix product: the best of several."""
    a = torch.randn(size, size).to(dtype)
    a @ a
    return max(2 * size**3 * rate(lambda: a @ a, 0.05) for _ in range(5))


def measure(name, arguments, protocol, pixels, options):
    """One network: slices a second of the whole step and of the network alone."""
    torch.manual_seed(0)
    network = build_network(name, arguments)
    if name != "PosteriorASLNet":
        network = ChannelNetwork(network, Standardisation(10.0, 34.0, 21.0, 1.55, 0.56))
    network = network.to(memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in network.parameters())
    pool = draw(PhantomConfig(size=pixels), 64, 1)
    domain, noise = DomainConfig(protocol=protocol), NoiseConfig()
    training = replace(RunConfig().training, lesion_weight=1.0)
    random = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)

    def simulated():
        chosen = pool[torch.randint(len(pool), (BATCH,), generator=random)]
        with torch.no_grad():
            return simulate(chosen, draw_physics(domain, BATCH, random), noise, random)

    def update(batch, prepared):
        corrections = network.corrections(prepared[1])
        estimate = network.correct(
            prepared[0],
            corrections,
            batch.observation.mask,
            batch.observation.calibration_uncertainty,
        )
        loss, _ = losses(estimate, batch, training)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    def step():
        batch = simulated()
        update(batch, network.prepare(batch.observation))

    batch = simulated()
    prepared = network.prepare(batch.observation)
    with FlopCounterMode(display=False) as counter:
        update(batch, prepared)
    precision = "float32" if options.float32 else "bfloat16"
    speed_up(network, "cpu", precision, "never" if options.eager else "always")
    for _ in range(2):
        step()
    whole = rate(step, options.seconds)
    alone = rate(lambda: update(batch, prepared), options.seconds)
    simulation = rate(simulated, options.seconds / 2)
    preparation = rate(lambda: network.prepare(batch.observation), options.seconds / 2)
    best = peak(torch.float32 if options.float32 else torch.bfloat16)
    return {
        "network": name,
        "features": list(arguments.get("features", "")) or "default",
        "parameters": parameters,
        "pixels": pixels,
        "slices_per_second": round(whole * BATCH, 1),
        "of_the_network_alone": round(alone * BATCH, 1),
        "milliseconds_per_slice": {
            "simulation": round(1000 / simulation / BATCH, 2),
            "without_weights": round(1000 / preparation / BATCH, 2),
            "network": round(1000 / alone / BATCH, 2),
        },
        "gflop_per_slice": round(counter.get_total_flops() / BATCH / 1e9, 3),
        "peak_gflops": round(best / 1e9, 1),
        "peak_fraction_of_network": round(counter.get_total_flops() * alone / best, 3),
        "peak_fraction_of_step": round(counter.get_total_flops() * whole / best, 3),
    }


def main():
    """Measure and print one JSON object a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="processor time a number")
    parser.add_argument("--eager", action="store_true", help="don't compile")
    parser.add_argument("--float32", action="store_true", help="no bfloat16")
    parser.add_argument("--only", type=int, help="number of the case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = CASES if options.only is None else CASES[options.only : options.only + 1]
    for *case, goal in cases:
        found = measure(*case, options)
        if goal is not None:
            found["goal_slices_per_second"] = goal
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
