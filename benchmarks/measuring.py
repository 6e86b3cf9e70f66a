"""What the benchmarks share: other processes' time and memory, rows that outlive an interruption, table cells."""

import collections
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(script, *options):
    """Runs a script of this project. Linux only: it reads /proc.

    Returns:
        The seconds it took, the peak resident memory in bytes of it and of each process that it started, a list, and
        what it printed.
    """
    with tempfile.TemporaryFile("w+") as output:
        started, peaks, looks = time.monotonic(), {}, collections.Counter()
        process = subprocess.Popen([sys.executable, ROOT / script, *map(str, options)], stdout=output)
        while process.returncode is None:
            with contextlib.suppress(OSError, StopIteration):  # one of them has just ended
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for pid in (process.pid, *map(int, children)):
                    peaks[pid] = peak_memory(pid)
                    looks[pid] += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        if process.returncode:
            sys.exit(f"{script} failed with status {process.returncode}")
        seconds = time.monotonic() - started
        output.seek(0)
        # Libraries start others for an instant while they are imported.
        return seconds, [peak for pid, peak in peaks.items() if looks[pid] > 5], output.read()


def peak_memory(pid):
    """The peak resident memory of a running process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def search(script, *options):
    """Runs a tuning script in a new folder; returns the seconds and the peaks, as run() does, and its summary.json."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, peaks, _ = run(script, *options, "--results-dir", folder)
        return seconds, peaks, json.loads(next(Path(folder).glob("*/summary.json")).read_text())


class Rows:
    """Measurements, one dictionary each, in a JSON file that is written after each of them.

    Args:
        path: of the file; None keeps them in memory. Rows that it holds are not measured again, so it is to be deleted
            when what they measured has changed.
    """

    def __init__(self, path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path and path.exists() else []

    def get(self, measure, **key):
        """The row with this key; where there is none, measure(**key) returns the rest of it."""
        for row in self.rows:
            if row | key == row:
                return row
        self.rows.append(key | measure(**key))
        if self.path:
            draft = self.path.with_suffix(".draft")
            draft.write_text(json.dumps(self.rows, indent=1))
            os.replace(draft, self.path)
        return self.rows[-1]


def add_store(parser):
    """Adds the option that says where the rows are stored."""
    parser.add_argument("--store", type=Path, metavar="FILE", help="each row is kept in it; the same command goes on")


def machine(hardware, versions):
    """One line on what was measured with; the arguments are those of a summary.json."""
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return ", ".join([hardware["cpu"], f"{hardware['cores']} cores", gpus, *map(" ".join, versions.items())])


def spread(values, form=".4f"):
    """Mean and standard deviation as text; without the latter where there is one value only."""
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


def table(header, rows):
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in [header, ["---"] * len(header), *rows])
