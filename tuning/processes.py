"""Starts more processes of the same command on this machine, which take part in the search and print nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

from tuning import environment

CHILD = "TUNING_STARTED_BY"  # the variable that tells a process that another one has started it


def is_child():
    """Whether this process was started by another one of the same search."""
    return CHILD in os.environ


def end_with_starter():
    """Ends this process as soon as the one that has started it is gone, whatever ended that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the starter

    def wait():
        os.read(0, 1)  # our standard input is a pipe of the starter's; nobody writes to it
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def started(count):
    """Keeps so many more processes at work; a context manager. One that dies is named; the others take its trial."""
    command = [sys.executable, *(each for each in sys.argv if each != "--overwrite")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(environment.GPUS))))).split(",")
    children = []
    ended = threading.Event()

    def watch(child):
        errors = child.stderr.read().strip()
        if child.wait() and not ended.is_set():
            reason = errors.splitlines()[-1] if errors else f"killed by signal {-child.returncode}"
            print(f"Process {child.pid} of this search has ended, the others go on: {reason}")

    try:
        for number in range(1, count + 1):
            gpu = {"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} if environment.GPUS else {}
            child = subprocess.Popen(
                command, env=os.environ | gpu | {CHILD: str(os.getpid())}, text=True, errors="replace",
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            children.append(child)
            threading.Thread(target=watch, args=[child], daemon=True).start()
        yield
    finally:
        ended.set()
        for child in children:
            child.kill()  # those that have nothing left to do, or all of them where this one is interrupted
            child.wait()


if is_child():
    end_with_starter()
