"""Running commands in tests: timed, limited, and told if the test fails."""

import os
import subprocess
import time


def call(command, seconds, cwd=None, **environment):
    """Run a command and return its result, with its seconds; pytest shows what it said."""
    began = time.perf_counter()
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    result.seconds = time.perf_counter() - began
    print("$", *command, f"\n{result.stdout}{result.stderr}-> {result.returncode}")
    return result
