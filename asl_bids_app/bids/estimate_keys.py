"""The keys of the maps, put in order by the estimate that they are of."""

from __future__ import annotations

from asl_bids_app.bids.outputs import OUTPUTS


def estimates() -> dict[str, dict[str, str]]:
    """Return the keys of the maps by estimate and quantity, as the labels of files tell them.

    Returns
    -------
    dict of str to dict of str to str
        The main estimate is ``""``, others have the word of their label. The quantities are
        ``cbf``, ``cbf_sd``, ``att``, ``att_sd`` and ``flags``.

    Examples
    --------
    >>> estimates()["lsq"]["cbf_sd"]
    'lsq_cbf_sd'
    """
    found: dict[str, dict[str, str]] = {}
    for output in OUTPUTS.values():
        if output.suffix not in {"cbf", "att"} or output.extension != ".nii.gz":
            continue
        word = output.label.removeprefix("desc-")
        quantity = output.suffix
        for ending, made in (("std", f"{output.suffix}_sd"), ("flags", "flags")):
            if word.endswith(ending):
                word, quantity = word.removesuffix(ending), made
        found.setdefault(word, {})[quantity] = output.key
    return found
