"""What is checked before a run starts: folders, estimator, model, device and mask."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

from asl_bids_app.atomic import PARTIAL
from asl_bids_app.bids.derivatives import unwritable
from asl_bids_app.errors import COMMAND_LINE, InputError
from asl_bids_app.options.groups import ESTIMATORS
from asl_bids_app.options.places import advised_output, in_raw_data

LOG = logging.getLogger("asl-app")


def check_writable(folder: Path, name: str) -> None:
    """Make a folder and try to write in it.

    Raises
    ------
    InputError
        If that can't be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"{PARTIAL}{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(folder, error, "a writable folder", name) from error


def check_output_place(bids_dir: Path, output_dir: Path, call: str) -> None:
    """Refuse a dataset that isn't there, and output inside the raw data.

    Raises
    ------
    InputError
    """
    source, place = bids_dir.resolve(), output_dir.resolve()
    if not source.is_dir():
        raise InputError(call, "bids_dir", f"no folder {bids_dir}", "a BIDS dataset")
    if in_raw_data(source, place):
        advice = advised_output(source)
        raise InputError(
            call, "output_dir", f"{place} inside the raw data", f"a folder outside (or {advice})"
        )


def choose_estimator(estimator: str | None, model: str | None) -> tuple[str, tuple[str, str]]:
    """Return the name of the main estimator, and the model with its hash.

    Parameters
    ----------
    estimator, model
        As they were asked for; None by default.

    Raises
    ------
    AslAppError
        If the model can't be used.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise InputError(
            COMMAND_LINE, "--estimator", repr(estimator), f"one of {', '.join(ESTIMATORS)}"
        )
    if estimator not in (None, "ensemble"):
        if model:
            raise InputError("command line", "--model", model, "--estimator ensemble")
        return estimator, ("", "")
    from asl_bids_app.models.store import DEFAULT_MODEL, find_model

    name = model or DEFAULT_MODEL
    if estimator is None and not model and find_model(name) is None:
        LOG.info("no trained model is installed: the main maps are by least squares")
        return "least-squares", ("", "")
    from asl_bids_app.models.store import model_hash

    return "ensemble", (name, model_hash(name))


def check_machine(device: str, model: str | None) -> None:
    """Check that device and model can be used, before hours are spent on what comes before them.

    Parameters
    ----------
    device
        Name of a device, or ``auto``.
    model
        Name or folder of the model that was asked for; None for the bundled one.

    Raises
    ------
    InputError
        If this machine has no such device, or the model is damaged or of another network.
    """
    if device != "auto":  # which there always is
        from asl_bids_app.estimators.devices import find_device

        find_device(device)
    check_model(model)


def check_model(model: str | None) -> None:
    """Check that a model can be used; see `check_machine`."""
    # The bundled one came with the program, and is looked at where it is used.
    if model:
        from asl_bids_app.models.store import load_model

        load_model(model)


def check_calibration(calibration: str, tissue: bool, m0_smooth_fwhm: float) -> None:
    """Check that what a calibration by fluid needs is not switched off.

    Raises
    ------
    InputError
        If there is no tissue to find fluid by, or the M0 is to be smoothed.
    """
    if calibration == "voxelwise":
        return
    option, found = f"--calibration {calibration}", ""
    if not tissue:
        found, expected = "--no-tissue", "tissue maps, by which fluid is found"
    elif m0_smooth_fwhm > 0:
        found = f"--m0-smooth-fwhm {m0_smooth_fwhm:g}"
        expected = "an M0 that is not smoothed, for fluid would be mixed with tissue"
    if found:
        raise InputError(COMMAND_LINE, option, f"it with {found}", expected)


def check_pvc(pvc: str | None, anatomy: bool) -> None:
    """Check that the T1w that a partial volume correction needs is not switched off.

    Raises
    ------
    InputError
        With ``--no-anatomy``.
    """
    if pvc and not anatomy:
        found, expected = "it with --no-anatomy", "use of the T1w, by which tissue is known"
        raise InputError(COMMAND_LINE, "--pvc", found, expected)


def check_mask(path: Path | None) -> None:
    """Check that the mask of the command line is an image: it serves every run.

    Raises
    ------
    InputError
        If it is none, or holds several volumes.
    """
    if path is None:
        return
    from asl_bids_app.bids.images import read_header

    option, expected = "--brain-mask", "a 3D image, 1 inside the brain"
    try:
        header = read_header(path)
    except InputError as error:
        found = f"{error.field}: {error.found}" if error.field else error.found
        raise InputError(COMMAND_LINE, option, f"{path}: {found}", expected, error.cure) from error
    if header.n_volumes > 1:
        raise InputError(COMMAND_LINE, option, f"{path}: {header.n_volumes} volumes", expected)
