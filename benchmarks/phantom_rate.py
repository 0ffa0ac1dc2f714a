"""How fast phantoms are drawn and slices simulated, on one thread.

Run it on an idle machine: ``python benchmarks/phantom_rate.py [--json FILE]``. Rates are
by processor time, which other programs disturb less, and by the clock. Exits with an error
where fewer than 150 phantoms of 64x64 a second are drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.data.augmentation import cropped
from asl_bids_app.training.data.shards import generate, load_shard
from asl_bids_app.training.phantoms.drawing import draw
from asl_bids_app.training.simulate.physics import draw_physics
from asl_bids_app.training.simulate.simulation import simulate

WANTED = 150.0
BATCH = 16


def rate(job: Callable[[], int]) -> dict[str, float]:
    """Return things a second by processor time and by the clock, best of three runs."""
    job()
    best = {"per_cpu_second": 0.0, "per_second": 0.0}
    for _ in range(3):
        clock, processor = time.perf_counter(), time.process_time()
        count = job()
        processor, clock = time.process_time() - processor, time.perf_counter() - clock
        best["per_cpu_second"] = max(best["per_cpu_second"], count / processor)
        best["per_second"] = max(best["per_second"], count / clock)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results there, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, noise = PhantomConfig(), NoiseConfig()
    drawn = draw(config, 128, 0)
    crops = cropped(drawn, 48, torch.Generator().manual_seed(0))
    results: dict[str, dict[str, float]] = {}

    def phantoms() -> int:
        return len(draw(config, 128, 1))

    def slices(protocol: str) -> Callable[[], int]:
        domain = DomainConfig(protocol)

        def job() -> int:
            generator = torch.Generator().manual_seed(0)
            for start in range(0, len(crops), BATCH):
                physics = draw_physics(domain, BATCH, generator)
                simulate(crops[start : start + BATCH], physics, noise, generator)
            return len(crops)

        return job

    with tempfile.TemporaryDirectory() as folder:
        manifest = generate(config, Path(folder), 128, seed=0, shard_size=128)
        path = Path(folder) / manifest.shards[0].name
        results["draw phantoms 64x64"] = rate(phantoms)
        results["read phantoms 64x64"] = rate(lambda: len(load_shard(path)))
        results["simulate 48x48, joint 6+6"] = rate(slices("joint 6+6"))
        results["simulate 48x48, random protocols"] = rate(slices("random"))
        size = manifest.shards[0].size / 128
    for name, found in results.items():
        print(f"{name:34s}", *(f"{value:9.0f} {unit}" for unit, value in found.items()))
    print(f"{size:.0f} bytes a phantom: 500,000 take {500_000 * size / 1e9:.2f} GB")
    if arguments.json:
        results["storage"] = {"bytes_per_phantom": size}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if results["draw phantoms 64x64"]["per_cpu_second"] >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
