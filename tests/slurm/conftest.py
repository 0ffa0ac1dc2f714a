"""A SLURM cluster of one node on this machine.

The scripts that bring it up lie beside the checkout in ../shared/ci (ASL_APP_CI_SCRIPTS names
another place); without them, without root or without Debian's packages the tests are skipped.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


def free_port():
    """Return the first of three ports that are free."""
    for base in range(19117, 20117, 10):
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                for offset, probe in enumerate((one, two, three)):
                    probe.bind(("127.0.0.1", base + offset))
            except OSError:
                continue
            return base
    pytest.skip("no free ports for SLURM")


@pytest.fixture(scope="session")
def slurm(root):
    """Give the environment of the cluster's client commands."""
    scripts = Path(os.environ.get("ASL_APP_CI_SCRIPTS", root.parent / "shared" / "ci"))
    if not (scripts / "slurm_up.sh").is_file():
        pytest.skip(
            f"no slurm_up.sh in {scripts}; ASL_APP_CI_SCRIPTS names the folder that has it"
        )
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("installing SLURM needs root and Debian's apt-get")
    lab = Path(tempfile.mkdtemp(prefix="asl-train-slurm-"))
    settings = {
        **os.environ,
        "SLURM_LAB": str(lab),
        "SLURM_LAB_PORT": str(free_port()),
        "SLURM_LAB_CPUS": "2",
        "SLURM_LAB_MEM": "16000",
    }
    up = subprocess.run(
        ["bash", scripts / "slurm_up.sh"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if up.returncode:
        last = (up.stdout + up.stderr).strip().splitlines()[-1:]
        pytest.skip(f"slurm_up.sh: SLURM can't be had here: {last}")
    yield {"SLURM_CONF": str(lab / "slurm.conf")}
    subprocess.run(
        ["bash", scripts / "slurm_down.sh", "--purge"], env=settings, timeout=120, check=False
    )
