"""What tests need to know of the machine they run on."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tuning.environment  # isort: skip (first: it sets up TensorFlow)  # noqa: F401

import common

NOBODY = 54321  # the id of a user and of a group that have no name


@functools.cache
def data_folder():
    """The folder in which this machine has the four files of the data set."""
    common.load_test_data(), common.load_train_data(4)  # fetches them where they are missing
    folders = common.keras_cache(), Path("/usr/share") / common.FOLDER
    return next(folder for folder in folders if (folder / "t10k-labels-idx1-ubyte.gz").exists())


def as_nobody():
    """The start of a command line that is run by a user without a name, a home and rights of his own.

    He may read everything, or he could not use a Python that lies in somebody's home directory.
    """
    rights = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
    prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights, "env", "--unset=HOME"]
    try:
        subprocess.run([*prefix, sys.executable, "-c", ""], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"another user's process can't be started here ({error})")
    return prefix


def at_work(script, variable="PYTEST_CURRENT_TEST"):
    """The ids of the processes of a script that this test has started, with a variable in their environment."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]  # without its phase
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
            needed = f"PYTEST_CURRENT_TEST={test} ", f"{variable}="
            if script.encode() in command and all(each.encode() in variables for each in needed):
                found.append(int(path.name))
        except OSError:  # it has ended meanwhile
            pass
    return found


def in_container(writable):
    """The start of a command line that can write to no file system but one, where this folder lies.

    Memory, /dev/shm, is another one: where it is the folder, that of all others is read-only.
    """
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && cd "$PWD" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", script, str(writable)]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a read-only file system can't be made here ({error})")
    return prefix
