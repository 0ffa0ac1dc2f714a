"""Which participants of a plan this run may process: none that another run works on there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from asl_bids_app.workflows.lock import LockedError, hold
from asl_bids_app.workflows.plan import Plan


@contextmanager
def claimed(plan: Plan, work_dir: Path) -> Iterator[tuple[Plan, tuple[LockedError, ...]]]:
    """Hold the participants of a plan that no other run in the work folder is at.

    Yields
    ------
    plan : Plan
        Without the others: what this run would record of them would stand in the way of what
        the other run finds.
    others : tuple of LockedError
        One for each of them.

    Raises
    ------
    LockedError
        If no participant is left.
    """
    others: dict[str, LockedError] = {}
    busy = {p.participant for p in plan.participants if p.units}
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(work_dir, sorted(busy - set(others))))
                break
            except LockedError as error:
                others[error.participant] = error
        ours = tuple(p for p in plan.participants if p.participant not in others)
        if others and not ours:
            raise next(iter(others.values()))
        yield replace(plan, participants=ours), tuple(others.values())
