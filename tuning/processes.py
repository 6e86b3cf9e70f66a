"""Starts more processes of the same command on this machine, which take part in the search and print nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

from tuning.environment import GPUS

STARTER = "TUNING_STARTED_BY"  # the variable that tells a process that another one has started it


def is_child():
    """Whether this process was started by another one of the same search."""
    return STARTER in os.environ


def _end_with_starter():
    os.read(0, 1)  # our standard input is a pipe of the starter's, which closes when that is gone, whatever ended it
    os._exit(1)


if is_child():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the starter
    threading.Thread(target=_end_with_starter, daemon=True).start()


@contextlib.contextmanager
def started(count):
    """Keeps so many more processes at work; a context manager. One that dies is named; the others take its trial."""
    command = [sys.executable, *(each for each in sys.argv if each != "--overwrite")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(GPUS))))).split(",")
    children, over = [], threading.Event()

    def watch(child):
        errors = child.stderr.read().split("\n")
        if child.wait() and not over.is_set():
            reason = next(filter(None, reversed(errors)), f"killed by signal {-child.returncode}")
            print(f"Process {child.pid} of this search has ended, the others take its trial: {reason}")

    try:
        for number in range(1, count + 1):
            gpu = {"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} if GPUS else {}
            child = subprocess.Popen(
                command, env=os.environ | gpu | {STARTER: str(os.getpid())}, text=True, errors="replace",
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            children.append(child)
            threading.Thread(target=watch, args=[child], daemon=True).start()
        yield
    finally:
        over.set()
        for child in children:  # they have nothing left to do, or this process was interrupted
            child.kill()
            child.wait()
