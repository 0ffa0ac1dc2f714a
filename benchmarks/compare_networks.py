"""Compare trained runs with each other on the same simulated slices of joint 6+6.

    python benchmarks/compare_networks.py RUN [RUN ...] [--output FILE.json]

Each RUN is a run folder of asl-train; ``RUN:0`` takes that member alone. The dataset is that of
the first run. Prints MAE over tissue with strong least squares as baseline, and the processor
hours that each training took.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.fit.training_run import RunFolder, environment
from asl_bids_app.training.validate import baselines, trials
from asl_bids_app.training.validate.run_ensemble import RunEnsemble
from asl_bids_app.training.validate.scenarios import find
from asl_bids_app.training.validate.validation import read_test_phantoms
from asl_bids_app.training.validate.voxel_errors import GROUPS, compare
from asl_bids_app.training.whole_files import derive_seed


def opened(argument, scratch):
    """The run, or a copy of it with one member: name, ensemble, hours of training."""
    path, _, member = argument.partition(":")
    root = Path(path).resolve()
    folder = RunFolder(root)
    spent = folder.read_research_config()["members"]
    if member:
        one = scratch / f"{root.name}-{member}"
        weights = one / "trained_models"
        weights.mkdir(parents=True)
        for name in ("config.yaml", "norm_stats.json", "research_config.json"):
            (one / name).symlink_to(root / name)
        (weights / "ensemble_model_0.pt").symlink_to(folder.model(int(member)))
        spent, root = {member: spent[member]}, one
    ensemble = RunEnsemble(root, "cpu")
    hours = sum(m["seconds"] for m in spent.values()) / 3600
    config = folder.read_config()
    many = "1 member" if len(spent) == 1 else f"{len(spent)} members"
    return f"{config.network.name}, {many}", ensemble, round(hours, 2)


def main():
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--snr", type=float, nargs="+", default=[3, 5, 10, 20])
    parser.add_argument("--scenarios", nargs="+", default=["joint", "joint_off"])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    first = Path(options.runs[0].partition(":")[0])
    config = load(first / "config.yaml", allow_noncritical=True)
    phantoms, _ = read_test_phantoms(config, first / "dataset")
    table = {"environment": environment(), "phantoms": phantoms.count, "scenarios": {}}
    with tempfile.TemporaryDirectory() as scratch:
        runs = [opened(run, Path(scratch)) for run in options.runs]
    table["training_hours"] = {name: hours for name, _, hours in runs}
    for scenario in options.scenarios:
        levels = table["scenarios"].setdefault(find(scenario).title, {})
        for snr in options.snr:
            levels[f"{snr:g}"] = row = {}
            found = estimates(config, runs, find(scenario), snr, phantoms)
            for name, parts in found.items():
                row[name] = {
                    q: round(sum(e * n for e, n in each) / sum(n for _, n in each), 3)
                    for q, each in parts.items()
                }
            sys.stdout.write(f"{scenario}, SNR {snr:g}: {json.dumps(row)}\n")
            sys.stdout.flush()
    if options.output:
        options.output.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def estimates(config, runs, scenario, snr, phantoms):
    """By method and quantity: (MAE, voxels) of each batch."""
    found = {}
    for begin in range(0, phantoms.count, trials.BATCH):
        part = phantoms.pick(slice(begin, begin + trials.BATCH))
        seed = derive_seed(config.seed, "compare", begin)
        batch = trials.simulated(config, scenario, snr, part, seed, "cpu")
        asked = batch.asked
        part, seen = part[asked], batch.observation[asked]
        mask = seen.mask
        chosen = GROUPS["tissue"](part.tissue[mask].numpy())
        methods = {name: ensemble(batch.observation, asked) for name, ensemble, _ in runs}
        methods[baselines.STRONG] = baselines.strong(seen)
        methods[baselines.POSTERIOR] = baselines.posterior(seen)
        maps = {name: trials.flat(each, mask) for name, each in methods.items()}
        truth = {q: getattr(part, q)[mask].numpy() for q in trials.QUANTITIES}
        for name, rows in compare(maps, truth, chosen, ()).items():
            for q, row in rows.items():
                found.setdefault(name, {}).setdefault(q, []).append((row["mae"], row["n"]))
    return found


if __name__ == "__main__":
    main()
