"""``python -m asl_bids_app.demo``: write a simulated BIDS dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from asl_bids_app.demo.cases import CASES, DEFAULT_CASES
from asl_bids_app.demo.gkm import Physics
from asl_bids_app.errors import AslAppError


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m asl_bids_app.demo",
        description="Write a simulated BIDS dataset of multi-delay ASL, with known truth.",
        epilog="cases:\n"
        + "\n".join(f"  {n:8} sub-{c.label}: {c.title}" for n, c in CASES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out_dir", help="a new or empty folder")
    parser.add_argument(
        "--cases", nargs="+", choices=list(CASES), default=list(DEFAULT_CASES), metavar="CASE"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--snr",
        type=float,
        default=10.0,
        help="mean grey-matter ΔM of the strongest measurement over the noise of an averaged "
        "measurement (default: 10; inf: no noise)",
    )
    parser.add_argument(
        "--voxel-scale", type=float, default=1.0, help="larger voxels, smaller images"
    )
    parser.add_argument("--no-motion", action="store_true", help="keep every head still")
    parser.add_argument(
        "--t1-tissue",
        type=float,
        metavar="SECONDS",
        help="T1 of the label in tissue (default: that of blood, as the app assumes)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = build_parser().parse_args(argv)
    from asl_bids_app.demo.dataset import simulate

    physics = Physics() if options.t1_tissue is None else Physics(t1_tissue=options.t1_tissue)
    try:
        out = simulate(
            options.out_dir,
            options.cases,
            seed=options.seed,
            snr=options.snr,
            voxel_scale=options.voxel_scale,
            head_motion=not options.no_motion,
            physics=physics,
        )
    except AslAppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"Simulated dataset: {out}\nTruth: {out / 'derivatives' / 'truth'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
