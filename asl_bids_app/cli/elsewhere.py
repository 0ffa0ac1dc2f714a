"""Options of other BIDS apps that this one lacks, and what stands for them here."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

NO_ANATOMY: Final = "nothing is read of FreeSurfer, nor of its licence"
REGISTERED: Final = "runs are laid on the T1w by a search that needs no start"
NO_DISTORTION: Final = "susceptibility distortion is not corrected"

ELSEWHERE: Final = MappingProxyType(
    {
        "fs-license-file": NO_ANATOMY,
        "fs-subjects-dir": NO_ANATOMY,
        "fs-no-reconall": NO_ANATOMY,
        "no-submm-recon": NO_ANATOMY,
        "cifti-output": "there are no surfaces: maps are written as volumes",
        "project-goodvoxels": "there are no surfaces: maps are written as volumes",
        "medial-surface-nan": "there are no surfaces: maps are written as volumes",
        "atlases": "--atlas is its name here",
        "skip-parcellation": "without --atlas there are the tissues only",
        "anat-only": "there is no anatomical part that could run alone",
        "anat-derivatives": "give them by --derivatives NAME=PATH",
        "longitudinal": "sessions are quantified one by one; --session-label chooses them",
        "subject-anatomical-reference": "the T1w of the session is used, else that of no session",
        "skull-strip-t1w": "the brain is found in every raw T1w; --derivatives brings other masks",
        "skull-strip-template": "the mask is made from the M0; give another by --brain-mask",
        "skull-strip-fixed-seed": "the mask is made without drawing numbers; --random-seed "
        "sets the seed of the rest",
        "use-syn-sdc": NO_DISTORTION,
        "force-syn": NO_DISTORTION,
        "ignore": "nothing is corrected beyond motion (--no-hmc leaves it out); slice times "
        "belong to the delays",
        "force": "each estimator is chosen by --estimator; nothing else can be forced",
        "asl2t1w-init": REGISTERED,
        "asl2t1w-dof": REGISTERED,
        "asl2anat-init": REGISTERED,
        "asl2anat-dof": REGISTERED,
        "force-bbr": REGISTERED,
        "force-no-bbr": REGISTERED,
        "dummy-vols": "mark volumes that are not to be used n/a in aslcontext.tsv",
        "dummy-scans": "mark volumes that are not to be used n/a in aslcontext.tsv",
        "smooth-kernel": "maps are not smoothed; --m0-smooth-fwhm smooths the M0",
        "scorescrub": "outlying pairs are left out always; SCORE and SCRUB are not offered",
        "basil": "the error bars and tissue priors of --estimator do its work",
        "m0-calib": "the M0 is the one that the sidecars name; --m0-scale multiplies it",
        "task-id": "ASL runs have no task; --bids-filter-file chooses runs by their entities",
        "echo-idx": "--bids-filter-file chooses runs by their entities, echo included",
        "bids-filter": "--bids-filter-file is its name here",
        "session-id": "--session-label is its name here",
        "subject-label": "--participant-label is its name here",
        "low-mem": "--mem bounds the memory that steps at a time may take",
        "notrack": "nothing is ever sent over the network",
        "track-carbon": "carbon is not tracked",
        "country-code": "carbon is not tracked",
        "resource-monitor": "the run report (--run-report) holds time and memory of each step",
        "md-only-boilerplate": "--boilerplate-only writes the methods text",
        "sloppy": "--no-hmc, --no-tissue and --estimator least-squares make a quick run",
        "output-layout": "there is one layout of outputs, that of BIDS derivatives",
        "aggregate-session-reports": "there is one report for each participant",
        "validate-bids": "what a run needs is checked always; the BIDS validator is a program "
        "of its own",
        "bids-validate": "what a run needs is checked always; the BIDS validator is a program "
        "of its own",
    }
)
"""Options of NiPreps and other BIDS apps that this one lacks, and what to do instead."""
