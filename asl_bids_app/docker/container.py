"""One run of the image: as a `docker run` command, and by the Docker SDK for Python."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asl_bids_app.docker.arguments import Mount
from asl_bids_app.errors import AslAppError
from asl_bids_app.processes import exit_code, stoppable

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

KILLED = 137
"""Exit code of a process that was killed, most often for memory."""
STOP_S = 10
"""Seconds that a container has to end after it was asked to."""


@dataclass(frozen=True)
class ContainerRun:
    """What is run, with all that Docker must know.

    Attributes
    ----------
    image : str
    arguments : tuple of str
        For `asl-app`.
    mounts : tuple of Mount
    user : str
        ``UID:GID``; empty for the image's own.
    gpus : str
        ``all``, a number, ``device=ID,ID``, or empty for none.
    """

    image: str
    arguments: tuple[str, ...]
    mounts: tuple[Mount, ...]
    user: str = ""
    gpus: str = ""

    def command(self) -> list[str]:
        """Return the equivalent `docker run`."""
        words = ["docker", "run", "--rm", "--init", "--network=none"]
        words += ["--read-only", "--tmpfs=/tmp"]
        if self.user:
            words.append(f"--user={self.user}")
        if self.gpus:
            # Docker reads a list of devices as CSV, so its commas are quoted.
            words.append(f'--gpus="{self.gpus}"' if "," in self.gpus else f"--gpus={self.gpus}")
        for mount in self.mounts:
            words += ["-v", f"{mount.path}:{mount.path}:{'rw' if mount.writable else 'ro'}"]
        return [*words, self.image, *self.arguments]

    def settings(self) -> dict[str, Any]:
        """Return the same for the Docker SDK."""
        settings: dict[str, Any] = {
            "image": self.image,
            "command": list(self.arguments),
            "network_mode": "none",
            "read_only": True,
            "tmpfs": {"/tmp": ""},
            "init": True,
            "volumes": {
                str(m.path): {"bind": str(m.path), "mode": "rw" if m.writable else "ro"}
                for m in self.mounts
            },
        }
        if self.user:
            settings["user"] = self.user
        if self.gpus:
            settings["device_requests"] = [_device_request(self.gpus)]
        return settings


def _device_request(gpus: str) -> Any:
    from docker.types import DeviceRequest

    wanted: dict[str, Any] = {"capabilities": [["gpu"]]}
    if gpus.startswith("device="):
        wanted["device_ids"] = gpus.removeprefix("device=").split(",")
    else:
        wanted["count"] = -1 if gpus == "all" else int(gpus)
    return DeviceRequest(**wanted)


@contextmanager
def connect() -> Iterator[DockerClient]:
    """Give a client of a Docker daemon that answers.

    Raises
    ------
    AslAppError
        If the SDK isn't installed, or no daemon answers.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        raise AslAppError(
            "Python's docker package is not installed. Cure: "
            "pip install 'asl-bids-app[docker]'; or run what --print-command prints."
        ) from error
    try:
        client = docker.from_env()
        client.ping()
    except (DockerException, OSError) as error:
        raise AslAppError(
            f"found no Docker daemon that answers ({_first_line(error)}). Cure: start Docker, "
            "or name another by DOCKER_HOST; where there is none, as on most clusters, use "
            "Apptainer."
        ) from error
    try:
        yield client
    finally:
        client.close()


def run(planned: ContainerRun) -> int:
    """Run a container to its end; its output goes to standard output and standard error.

    Returns
    -------
    int
        Exit code of `asl-app`; 130 if it was interrupted, 143 if it was asked to end. The
        container is stopped then.

    Raises
    ------
    AslAppError
        If it can't be started, or was killed.
    """
    try:
        with stoppable(grace_s=2 * STOP_S), connect() as client:
            return _run(client, planned)
    except KeyboardInterrupt as stop:
        return exit_code(stop)


def _run(client: DockerClient, planned: ContainerRun) -> int:
    from docker.errors import APIError, ImageNotFound

    try:
        client.images.get(planned.image)
    except ImageNotFound as error:
        raise AslAppError(
            f"found no image {planned.image} on this machine. Cure: "
            f"docker build -t {planned.image} FOLDER, with the source of this app; or "
            "docker load, or docker pull; or name another with --image."
        ) from error
    try:
        container = client.containers.create(**planned.settings())
    except APIError as error:
        raise AslAppError(f"Docker made no container: {_first_line(error)}") from error
    try:
        return _follow(container, planned)
    finally:
        container.remove(force=True)


def _follow(container: Container, planned: ContainerRun) -> int:
    from docker.errors import APIError

    # Attached before the start, so that no line is lost.
    output = container.attach(stdout=True, stderr=True, stream=True, demux=True)
    try:
        container.start()
    except APIError as error:
        hint = ""
        if planned.gpus:
            hint = " Cure: install the NVIDIA Container Toolkit, or leave out --gpus."
        raise AslAppError(f"the container did not start: {_first_line(error)}{hint}") from error
    try:
        for out, err in output:
            for data, stream in ((out, sys.stdout), (err, sys.stderr)):
                if data:
                    stream.buffer.write(data)
                    stream.flush()
        code = int(container.wait()["StatusCode"])
    except KeyboardInterrupt:
        container.stop(timeout=STOP_S)
        raise
    container.reload()
    if code == KILLED or container.attrs["State"].get("OOMKilled"):
        raise AslAppError(
            "the container was killed, most likely for want of memory. Cure: give Docker more "
            "memory (Docker Desktop has a setting for it), or use fewer processors (--nprocs 1)."
        )
    return code


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "explanation", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
