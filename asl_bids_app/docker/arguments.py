"""What a command line of `asl-app` needs from the machine: its paths, and itself in full."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asl_bids_app.cli.parser import bare_parser, parse
from asl_bids_app.errors import InputError
from asl_bids_app.options.declare import Access, option_of, options_of
from asl_bids_app.options.readers import path
from asl_bids_app.options.table import CONFIG_FILE, AppOptions

ACCESS: Final = {
    **{item.name: option_of(item).access for item in options_of(AppOptions)},
    "config_file": CONFIG_FILE.access,
}
"""What the app does with the path of each option, by the table of options."""

POSITIONAL: Final = ("bids_dir", "output_dir", "level")

SYSTEM: Final = (
    *map(Path, ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")),
    Path("/opt/asl-app"),
    Path("/var/lib"),
)
"""Folders of the image that a mount would hide."""


@dataclass(frozen=True)
class Mount:
    """A file or folder that the container sees under its own name.

    Attributes
    ----------
    path : Path
        Absolute, the same outside and inside: paths in records and sidecars stay true.
    writable : bool
    """

    path: Path
    writable: bool = False


@dataclass(frozen=True)
class AppCommand:
    """A command line of `asl-app` with absolute paths, and the mounts it needs."""

    arguments: tuple[str, ...]
    mounts: tuple[Mount, ...]
    options: AppOptions


def read_command(argv: Sequence[str]) -> AppCommand:
    """Read a command line of `asl-app`, check it, and make its paths absolute.

    Parameters
    ----------
    argv
        Arguments of `asl-app`.

    Raises
    ------
    SystemExit
        With code 2 and one line on standard error, as from `asl-app`, if an argument is wrong.
    InputError
        If a path can't be given to a container.
    """
    options = parse(argv)
    parser = _text_parser()
    given = vars(parser.parse_args(argv))
    values = {**vars(options), "config_file": given.get("config_file")}
    # Docker mounts nothing under a name with dots in it.
    values = {key: _plain(value) for key, value in values.items()}
    arguments = [str(values[name]) for name in POSITIONAL]
    mounts = [Mount(values["bids_dir"]), *_writable_folder(values["output_dir"], options)]
    for action in parser._actions:
        name = action.dest
        access = ACCESS.get(name, Access.NONE)
        if name in POSITIONAL or access is Access.MODEL:
            continue
        if access is Access.NONE:
            arguments += _spell(action, given[name]) if name in given else []
            continue
        # A path may also come from a configuration file, whose text is read in the container.
        value = values[name]
        if isinstance(value, Mapping) and value:
            arguments += [_spelling(action), *(f"{k}={v}" for k, v in value.items())]
            mounts += [Mount(place) for place in value.values()]
        elif value:
            arguments += [_spelling(action), str(value)]
            mounts += _mounts(name, value, options)
    if options.model:
        model = _model(options.model)
        arguments += ["--model", str(model)]
        mounts += [Mount(model)] if isinstance(model, Path) else []
    for mount in mounts:
        _check_mount(mount)
    return AppCommand(tuple(arguments), _outermost(mounts), options)


def _model(model: str) -> str | Path:
    """Return a model's folder, or its name if it isn't one."""
    folder: Path = _plain(path(model))
    if folder.is_dir():
        return folder
    if os.sep in model:
        raise InputError("command line", "--model", model, "a model's name or its folder")
    return model


def _text_parser() -> argparse.ArgumentParser:
    """Return a parser that keeps only what is given, as written but for paths."""
    parser = bare_parser()
    for action in parser._actions:
        action.type = path if action.type is path else None
    return parser


def _plain(value: Any) -> Any:
    """Return a path, or the paths of a mapping, without steps up."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.resolve() if isinstance(value, Path) and ".." in value.parts else value


def _spelling(action: argparse.Action) -> str:
    return next(name for name in action.option_strings if name.startswith("--"))


def _spell(action: argparse.Action, value: Any) -> list[str]:
    """Write an option as it must be given."""
    name = _spelling(action)
    if isinstance(action, argparse.BooleanOptionalAction):
        return [name if value else f"--no-{name.removeprefix('--')}"]
    if isinstance(action, argparse._CountAction):
        return [name] * value
    if action.nargs == 0:
        return [name]
    return [name, *(value if isinstance(value, list) else [str(value)])]


def _mounts(name: str, place: Path, options: AppOptions) -> list[Mount]:
    if name == "work_dir" and options.level == "group":
        return []
    access = ACCESS[name]
    if access is Access.WRITE_ALWAYS:
        return [Mount(place, writable=True)]
    if access in {Access.WRITE, Access.WRITE_FILE}:
        folder = place.parent if access is Access.WRITE_FILE else place
        return _writable_folder(folder, options)
    return [Mount(place)]


def _writable_folder(folder: Path, options: AppOptions) -> list[Mount]:
    # A dry run writes nothing, so it makes no folder either.
    if options.dry_run and not folder.is_dir():
        return []
    return [Mount(folder, writable=True)]


def _check_mount(mount: Mount) -> None:
    resolved = mount.path.resolve()
    for place in (mount.path, resolved):
        if place in {Path("/"), Path("/tmp")} or any(
            place == s or s in place.parents for s in SYSTEM
        ):
            raise InputError(
                "command line",
                "",
                f"{mount.path} in a folder of the system",
                "a folder that a container can be given",
                "move or link the data elsewhere, such as under /home or /data",
            )
    if any(character in str(mount.path) for character in ":,\n"):
        raise InputError(
            "command line",
            "",
            f"{str(mount.path)!r}, with a character that Docker can't mount",
            "a path without colon, comma and line end",
            "rename it",
        )
    if not mount.writable and not os.access(mount.path, os.R_OK):
        raise InputError(mount.path, "", "nothing readable", "a file or folder")


def _outermost(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Leave out what another mount already gives, and set parents before children."""
    kept: dict[Path, Mount] = {}
    for mount in sorted(mounts, key=lambda m: len(m.path.parts)):
        over = [kept[p] for p in (mount.path, *mount.path.parents) if p in kept]
        # The nearest mount above decides whether a path can be written to.
        if not over or (mount.writable and not over[0].writable):
            kept[mount.path] = mount
    return tuple(kept.values())


def make_folders(command: AppCommand) -> None:
    """Make the folders that will be written to; Docker itself would make them root's.

    Raises
    ------
    InputError
        If one can't be made or written to.
    """
    for mount in command.mounts:
        if not mount.writable:
            continue
        try:
            mount.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                mount.path, "", f"no way to make it ({error.strerror})", "a folder to write to"
            ) from error
        if not os.access(mount.path, os.W_OK | os.X_OK):
            raise InputError(mount.path, "", "no right to write there", "a folder of yours")


def links_outside(command: AppCommand) -> list[Path]:
    """Return links of a dataset that lead to where the container can't see.

    Looked at are the participants, and what lies in their `perf` folders.
    """
    root = Path(command.arguments[0])
    patterns = ("sub-*", "sub-*/ses-*", "sub-*/perf", "sub-*/perf/*", "sub-*/ses-*/perf/*")
    seen = [mount.path for mount in command.mounts]
    found = []
    for pattern in patterns:
        for link in root.glob(pattern):
            if not link.is_symlink():
                continue
            target = Path(os.path.normpath(link.parent / link.readlink()))
            if not any(target == place or place in target.parents for place in seen):
                found.append(link)
    return found
