"""Starts more processes of the same command on this machine, which take part in the search and print nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

from tuning.environment import GPUS

STARTER = "TUNING_STARTED_BY"  # the variable that tells a process that another one has started it
IS_CHILD = STARTER in os.environ


def _end_with_starter():
    os.read(0, 1)  # our standard input is a pipe of the starter's, which closes when that is gone, whatever ended it
    os._exit(1)


if IS_CHILD:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the starter
    threading.Thread(target=_end_with_starter, daemon=True).start()


@contextlib.contextmanager
def started(count):
    """Keeps so many more processes at work; a context manager. One that dies is named; the others take its trial."""
    command = [sys.executable, *(each for each in sys.argv if each != "--overwrite")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(GPUS))))).split(",")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    children, over = [], threading.Event()

    def watch(child):
        errors = child.stderr.read().split("\n")
        if child.wait() and not over.is_set():
            reason = next(filter(None, reversed(errors)), f"killed by signal {-child.returncode}")
            print(f"Process {child.pid} of this search has ended, the others take its trial: {reason}")

    try:
        for number in range(1, count + 1):
            gpu = {"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} if GPUS else {}
            variables = os.environ | gpu | {STARTER: str(os.getpid())}
            children.append(subprocess.Popen(command, env=variables, text=True, errors="replace", **pipes))
            threading.Thread(target=watch, args=children[-1:], daemon=True).start()
        yield
    finally:
        over.set()
        for child in children:  # they have nothing left to do, or this process was interrupted
            child.kill()
            child.wait()
