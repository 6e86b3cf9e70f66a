"""The command line: options, exit statuses, and one line for each error."""

import argparse
import contextlib
import math
import sys
import time
from pathlib import Path

import keras_tuner as kt
import tensorflow as tf

from tuning import process
from tuning.project import Project

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def _folder(text):
    if not text:  # as of a variable that is not set
        raise argparse.ArgumentTypeError("must not be empty")
    try:
        text.encode()
        return Path(text).expanduser()
    except (UnicodeError, RuntimeError) as error:  # TensorFlow wants UTF-8; there may be no such user
        raise argparse.ArgumentTypeError(f"can't be used: {text!r} ({error})")


class ArgumentParser(argparse.ArgumentParser):
    """The options that every search has; a script may add its own, which count as settings of the search."""

    def __init__(self, description):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self.add_number("--max-trials", 10, "hyperparameter combinations to try")
        self.add_number("--epochs", 30, "epochs of a trial, at most")
        self.add_number("--batch-size", 128, "examples per training step")
        self.add_number("--patience", 3, "end a trial after so many epochs without a better validation accuracy")
        self.add_number("--seed", 1, "same seed, same result", high=2**32 - 1)
        self.add_number("--workers", 1, "trials at a time on this machine")
        add = self.add_argument
        add("--precision", choices=("auto", *PRECISIONS), default="auto", help="auto: the fastest on this hardware")
        add("--results-dir", type=_folder, default="keras_tuner_results", metavar="DIR", help="folder (%(default)s)")
        add("--overwrite", action="store_true", help="start a new search instead of resuming the stored one")
        add("--tensorboard", action="store_true", help="write logs for TensorBoard")

    def add_number(self, option, default, text, low=1, high=None):
        """Adds an option for a whole number of at least `low` and, where given, at most `high`."""

        def number(value):
            with contextlib.suppress(ValueError):
                if low <= int(value) <= (high or math.inf):
                    return int(value)
            span = f"from {low} to {high}" if high else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"must be a whole number {span}, not {value!r}")

        self.add_argument(option, type=number, default=default, metavar="N", help=f"{text} (%(default)s)")

    def error(self, message):
        raise process.BadInput(f"{message} (--help lists the options)")


def run(main, parser, project_name):
    """Runs a script: what a user can cause ends in one line and an exit status, not in a traceback.

    Args:
        main: the script's function; it gets the parsed options and the Project.
        parser: an ArgumentParser.
        project_name: the name of the search's folder in --results-dir.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's can't
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    if process.IN_NOTEBOOK:
        process.STARTED = time.monotonic()  # not the first search of this process, maybe
    else:
        process.ignore_uncaught_storage_errors()
    try:
        options = parser.parse_args()
        with Project(options, project_name) as project:
            main(options, project)
        return
    except process.BadInput as error:
        status, line = 2, str(error)
    except process.SearchFailed as error:
        status, line = 1, str(error)
    except KeyboardInterrupt:  # only in a notebook, see process.py
        status, line = 130, f"interrupted. {process.resume_hint()}"
    except Exception as error:
        known = ImportError, tf.errors.OpError, kt.errors.FatalError
        if not (process.is_storage_error(error) or isinstance(error, known)):
            raise
        status, line = 1, f"{process.one_line(error).rstrip('.')}. {process.resume_hint()}"
    line = f"{process.program()}: {line}"
    if process.IN_NOTEBOOK:
        print(line, file=sys.stderr)
        sys.exit(status)
    process.end(status, line)  # on a full disk or a closed pipe, closing files in good order would fail again
