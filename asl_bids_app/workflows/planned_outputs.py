"""The files that a run will write for a unit, by their names."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asl_bids_app.bids.acquisition import Acquisition, distinct_measurements
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.bids.sessions import Unit
from asl_bids_app.options.table import AppOptions
from asl_bids_app.settings import runs_baseline
from asl_bids_app.wording import title_of

if TYPE_CHECKING:
    from asl_bids_app.anatomy.outlook import Outlook


def _shows_arteries(runs: Sequence[Acquisition], estimator: str) -> bool:
    """Tell whether a delay is early enough to show arteries that nothing crushes."""
    import torch

    from asl_bids_app.estimators.arteries import FEWEST, FEWEST_FOR_POSTERIOR, shows_arteries
    from asl_bids_app.protocol import Protocol

    rows = [
        (run.scheme, *times[:2], run.metadata.get("VascularCrushing") is True)
        for run in runs
        for times in distinct_measurements(run)
    ]
    if not rows:
        return False
    schemes, delays, durations, crushed = zip(*rows, strict=True)
    times = (torch.tensor(delays), torch.tensor(durations), torch.zeros(1, len(rows)))
    fewest = FEWEST if estimator == "least-squares" else FEWEST_FOR_POSTERIOR
    return shows_arteries(Protocol(schemes, *times, crushed), fewest)


def list_outputs(
    unit: Unit, options: AppOptions, estimator: str, outlook: Outlook | None
) -> list[str]:
    """Return lines with the images and tables that a run writes for a unit.

    Parameters
    ----------
    unit, options
    estimator
        Of the main maps.
    outlook
        Of its anatomy; None with ``--no-anatomy``.
    """
    without = set()
    runs = [run.acquisition for run in unit.runs]
    if sum(len(distinct_measurements(run)) for run in runs) > 1:
        # The consensus formula is for a single delay.
        without |= {"consensus_cbf", "consensus_cbf_sd"}
    if all(run.encoding for run in runs):
        without.add("carpet")
    if not options.hmc:
        without.add("confounds")
    if not options.tissue:
        without |= {"gm", "wm", "csf"}
    if outlook is None or not outlook.pvc:
        without |= {key for key, output in OUTPUTS.items() if output.asked}
    if not options.arterial or not _shows_arteries(runs, estimator):
        without |= {"abv", "abv_sd"}
    baseline = runs_baseline(options.baseline, estimator)
    names = [
        output.name(unit.entities)
        for key, output in OUTPUTS.items()
        if key not in without and (baseline or not output.baseline)
    ]
    if outlook is not None:
        names += _names_of_anatomy(unit, outlook, without)
    folder = Path(f"sub-{unit.entities['sub']}")
    if "ses" in unit.entities:
        folder /= f"ses-{unit.entities['ses']}"
    listed = textwrap.wrap(", ".join(names), 100, break_long_words=False, break_on_hyphens=False)
    head = f"  outputs of {unit.name}, in {folder / 'perf'}/:"
    return [head, *(f"    {line}" for line in listed)]


def _names_of_anatomy(unit: Unit, outlook: Outlook, without: Collection[str]) -> list[str]:
    """Return the names of maps in other spaces and of tables of regions."""
    from asl_bids_app.anatomy.request import LAID
    from asl_bids_app.anatomy.tables import endings

    keys = [key for name in LAID for key in (name, f"{name}_sd")] + ["mask"]
    keys += [key for key, output in OUTPUTS.items() if output.asked]
    names = [
        OUTPUTS[key].name({**unit.entities, **space.entities})
        for space in outlook.spaces
        for key in keys
        if key not in without
    ]
    title = title_of(unit.entities)
    return names + [
        f"{title}_atlas-{atlas}{ending}"
        for atlas, sides in outlook.atlases.items()
        for ending in endings(flows=outlook.pvc, sides=sides)
    ]
