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
from asl_bids_app.options.table import AppOptions

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


def choose_estimator(options: AppOptions) -> tuple[str, tuple[str, str]]:
    """Return the name of the main estimator, and the model with its hash.

    Raises
    ------
    AslAppError
        If the model can't be used.
    """
    if options.estimator is not None and options.estimator not in ESTIMATORS:
        raise InputError(
            COMMAND_LINE, "--estimator", repr(options.estimator), f"one of {', '.join(ESTIMATORS)}"
        )
    if options.estimator not in (None, "ensemble"):
        if options.model:
            raise InputError("command line", "--model", options.model, "--estimator ensemble")
        return options.estimator, ("", "")
    from asl_bids_app.models.store import DEFAULT_MODEL, find_model

    name = options.model or DEFAULT_MODEL
    if options.estimator is None and not options.model and find_model(name) is None:
        LOG.info("no trained model is installed: the main maps are by least squares")
        return "least-squares", ("", "")
    from asl_bids_app.models.store import model_hash

    return "ensemble", (name, model_hash(name))


def check_machine(options: AppOptions, model: str) -> None:
    """Check that device and model can be used, before hours are spent on what comes before them.

    Parameters
    ----------
    options
        Of the run.
    model
        Name or folder of the ensemble's model; empty for none.

    Raises
    ------
    InputError
        If this machine has no such device, or the model is damaged or of another network.
    """
    if options.device != "auto":  # which there always is
        from asl_bids_app.estimators.devices import find_device

        find_device(options.device)
    # The bundled one came with the program, and is looked at where it is used.
    if model and options.model:
        from asl_bids_app.models.store import load_model

        load_model(model)


def check_calibration(options: AppOptions) -> None:
    """Check that what a calibration by fluid needs is not switched off.

    Raises
    ------
    InputError
        If there is no tissue to find fluid by, or the M0 is to be smoothed.
    """
    if options.calibration == "voxelwise":
        return
    option, found = f"--calibration {options.calibration}", ""
    if not options.tissue:
        found, expected = "--no-tissue", "tissue maps, by which fluid is found"
    elif options.m0_smooth_fwhm > 0:
        found = f"--m0-smooth-fwhm {options.m0_smooth_fwhm:g}"
        expected = "an M0 that is not smoothed, for fluid would be mixed with tissue"
    if found:
        raise InputError(COMMAND_LINE, option, f"it with {found}", expected)


def check_mask(options: AppOptions) -> None:
    """Check that the mask of the command line is an image: it serves every run.

    Raises
    ------
    InputError
        If it is none, or holds several volumes.
    """
    if options.brain_mask is None:
        return
    from asl_bids_app.bids.images import read_header

    path, option, expected = options.brain_mask, "--brain-mask", "a 3D image, 1 inside the brain"
    try:
        header = read_header(path)
    except InputError as error:
        found = f"{error.field}: {error.found}" if error.field else error.found
        raise InputError(COMMAND_LINE, option, f"{path}: {found}", expected, error.cure) from error
    if header.n_volumes > 1:
        raise InputError(COMMAND_LINE, option, f"{path}: {header.n_volumes} volumes", expected)
