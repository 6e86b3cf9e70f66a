"""What tests need to know of the machine they run on."""

import contextlib
import functools
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import tuning.environment  # isort: skip (first: it sets up TensorFlow)  # noqa: F401

import common

NOBODY = 54321  # the id of a user and of a group that have no name


@functools.cache
def data_folder():
    """The folder in which this machine has the four files of the data set."""
    common.load_test_data(), common.load_train_data(4)  # fetches them where they are missing
    folders = common.CACHE, Path("/usr/share") / common.FOLDER
    return next(folder for folder in folders if (folder / "t10k-labels-idx1-ubyte.gz").exists())


def at_work(script, variable="PYTEST_CURRENT_TEST"):
    """The ids of the processes of a script that this test has started, with a variable in their environment."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]  # without its phase
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            variables = process.environ()
            if script in " ".join(process.cmdline()) and variable in variables:
                found += [process.pid] * variables.get("PYTEST_CURRENT_TEST", "").startswith(f"{test} ")
    return found


def as_nobody_in_container(writable):
    """The start of a command line of a user without a name, a home and rights, who can write to one folder alone.

    All file systems but this folder's are read-only, and memory, /dev/shm. He may read everything, or he could not use
    a Python that lies in somebody's home directory.
    """
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && cd "$PWD" && exec "$@"'
    nobody = "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"
    rights = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "env", "--unset=HOME"
    prefix = ["unshare", "--mount", "sh", "-c", script, writable, *nobody, *rights]
    try:
        subprocess.run([*prefix, sys.executable, "-c", ""], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"neither another user's process nor a read-only file system can be made here ({error})")
    return prefix
