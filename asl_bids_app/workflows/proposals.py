"""Writing proposed sidecars and tables to a folder of their own, for review."""

from __future__ import annotations

from pathlib import Path

from asl_bids_app.bids import marks
from asl_bids_app.bids.derivatives import write_json, write_table
from asl_bids_app.bids.proposal import Proposal
from asl_bids_app.bids.propose import propose
from asl_bids_app.errors import COMMAND_LINE, Cause, InputError
from asl_bids_app.workflows.plan import Plan, faults_of_run

OPTION = "--propose-sidecars"


def write_proposals(plan: Plan, folder: Path) -> list[str]:
    """Write what is proposed for the runs of a plan that have faults.

    A file that is there already is left alone: somebody may be working on it.

    Parameters
    ----------
    plan
        Of the run.
    folder
        Where the proposals go, laid out as the dataset.

    Returns
    -------
    list of str
        A line for each file, and what to do with them.

    Raises
    ------
    InputError
        If the folder can't be written.
    """
    lines: list[str] = []
    written: set[Path] = set()
    for participant in plan.participants:
        for run in participant.not_understood:
            try:
                proposals = propose(run, lambda trial: faults_of_run(trial, plan.reading))
            except Exception as error:
                # A guess that fails must not cost the others theirs.
                lines.append(f"{OPTION}: nothing to propose for {run.name} ({error})")
                continue
            if not proposals:
                lines.append(f"{OPTION}: nothing to propose for {run.name}: see its errors")
            for proposal in proposals:
                path = folder / proposal.path
                if path in written:
                    continue  # An M0 that serves several runs.
                if path.exists():
                    lines.append(f"{OPTION}: {path} is there already and is left as it is")
                    continue
                _write(proposal, path)
                written.add(path)
                lines.append(f"{OPTION}: {path}: {_count(proposal)}")
    if written:
        lines.append(
            f"{OPTION}: compare every proposed value with the protocol, correct it, fill in what "
            f"is null or ?, remove {marks.KEY} (in a table the column {marks.COLUMN}), and copy "
            f"the files into the dataset: cp -r {folder}/. {plan.dataset.root}/"
        )
    elif not lines:
        lines.append(f"{OPTION}: no run has faults that a sidecar could mend: nothing is written")
    return lines


def _write(proposal: Proposal, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(proposal.content, tuple):
            write_table(
                path,
                {
                    "volume_type": [guess.value for guess in proposal.content],
                    marks.COLUMN: [guess.why for guess in proposal.content],
                },
            )
        else:
            write_json(path, proposal.content)
    except OSError as error:
        found = f"no way to write {path} ({error.strerror})"
        expected, cause = "a writable folder", Cause.NOT_WRITABLE
        raise InputError(COMMAND_LINE, OPTION, found, expected, cause=cause) from error


def _count(proposal: Proposal) -> str:
    def listed(names: tuple[str, ...]) -> str:
        return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:8])}, ..."

    what = "row" if isinstance(proposal.content, tuple) else "key"
    parts = [
        f"{len(names)} {what}{'s' * (len(names) != 1)} {how} ({listed(names)})"
        for names, how in ((proposal.guessed, "guessed"), (proposal.open, "to fill in or correct"))
        if names
    ]
    return ", ".join(parts)
