"""The command line: options, exit statuses, and one line for each error. Imports nothing that takes time."""

import _thread
import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

KEPT = "Ended trials are kept: the same command goes on"
STARTED = time.time()  # of this process, in seconds since the epoch


class Parser(argparse.ArgumentParser):
    """The options that every search has; a script may add its own, which count as settings of the search."""

    def __init__(self, description):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False)
        self.add_number("--max-trials", 10, "hyperparameter combinations to try")
        self.add_number("--epochs", 30, "epochs of a trial, at most")
        self.add_number("--batch-size", 128, "examples per training step")
        self.add_number("--patience", 3, "end a trial after so many epochs without a better validation accuracy")
        self.add_number("--seed", 1, "same seed, same result", high=2**32 - 1)
        self.add_number("--workers", None, "processes on this machine, default: one a core; 0: show the trials", low=0)
        add, precisions = self.add_argument, ("auto", "float32", "mixed_bfloat16", "mixed_float16")
        add("--precision", choices=precisions, default="auto", help="auto: the fastest on this hardware")
        add("--results-dir", type=Path, default="keras_tuner_results", help="where results are written (%(default)s)")
        add("--overwrite", action="store_true", help="start a new search instead of resuming the stored one")
        add("--tensorboard", action="store_true", help="write logs for TensorBoard")
        add("--deterministic", action="store_true", help="same digits on a GPU too, slower; on CPUs they always are")

    def add_number(self, option, default, text, low=1, high=sys.maxsize):
        """Adds an option for a whole number from `low` to `high`."""

        def number(value):
            if value.isdecimal() and low <= int(value) <= high:
                return int(value)
            span = f"of at least {low}" if high == sys.maxsize else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"must be a whole number {span}, not {value!r}")

        help = text if default is None else f"{text} ({default})"
        self.add_argument(option, type=number, default=default, metavar="N", help=help)

    def error(self, message):
        stop(f"{message} (--help lists the options)", status=2)


def stop(line, status=1):
    """Ends the process with a line on stderr: status 2 for what is refused, 1 for what failed while running."""
    with contextlib.suppress(OSError):  # the reader of a pipe may be gone
        print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr, flush=True)
    sys.exit(status)


def one_line(error):
    """What an exception says, in one line: without the stack traces that TensorFlow puts before and after it."""
    if isinstance(error, OSError) and error.errno and "\n" in str(error):  # HDF5 writes a page
        return os.strerror(error.errno)
    noise = " ", "\t", "Graph execution error", "Detected at node", "<stack traces", "Exception encountered"
    lines = (line.rstrip() for line in str(error).splitlines() if line.strip() and not line.startswith(noise))
    return next(lines, type(error).__name__)[:600]


def stop_for(error):
    """Ends the process with a line that says what an exception says, and status 1."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would fail once more when it flushes stdout
        stop(f"nobody reads the output any more. {KEPT}.")
    hint = " (fewer --workers may help)" * (type(error).__name__ in ("MemoryError", "ResourceExhaustedError"))
    stop(f"{one_line(error).rstrip('.')}{hint}. {KEPT}.")


@contextlib.contextmanager
def errors_in_one_line():
    """Ends a script with one line and an exit status, not with a traceback, whatever a user can cause."""

    def again(found):  # Python ignores an interruption in a finalizer
        if found.exc_type is not KeyboardInterrupt:
            return sys.__unraisablehook__(found)
        threading.Timer(0.1, _thread.interrupt_main).start()

    sys.unraisablehook = again
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's can't
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    try:
        yield
    except KeyboardInterrupt:
        stop(f"interrupted. {KEPT}, and trains again what was running.", status=128 + signal.SIGINT)
    except (OSError, ImportError, MemoryError) as error:
        stop_for(error)
