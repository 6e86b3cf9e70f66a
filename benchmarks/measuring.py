"""What the benchmarks share: other processes' time and memory, rows that outlive an interruption, tables."""

import collections
import contextlib
import itertools
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RANDOM_SEARCH = "random_search_tuning.py"
ACCURACIES, PACKAGES = ("val_accuracy", "test_accuracy"), ("tensorflow", "keras", "keras_tuner", "numpy")


def run(script, *options):
    """Runs a script of this project; returns its seconds, each process's peak memory in GB as text, and its output."""
    print(f"{time.strftime('%H:%M')}: {script} {' '.join(map(str, options))}", file=sys.stderr)
    with tempfile.TemporaryFile("w+") as output:
        started, peaks, looks = time.monotonic(), {}, collections.Counter()
        process = subprocess.Popen([sys.executable, ROOT / script, *map(str, options)], stdout=output)
        while process.returncode is None:
            with contextlib.suppress(OSError, TypeError):  # one of them has just ended
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for pid in (str(process.pid), *children):
                    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                    peaks[pid] = int(peak[1]) * 1024 / 1e9
                    looks[pid] += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        if process.returncode:
            sys.exit(f"{script} failed with status {process.returncode}")
        seconds = time.monotonic() - started
        output.seek(0)
        # Libraries start others for an instant while they are imported.
        memory = ", ".join(f"{peak:.2f}" for pid, peak in peaks.items() if looks[pid] > 5)
        return seconds, memory, output.read()


def search(script, *options):
    """Runs a tuning script in a new folder; returns what the benchmarks show of it, a dictionary."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory, output = run(script, *options, "--results-dir", folder)
        path = next(Path(folder).glob("*/summary.json"))
        summary = json.loads(path.read_text())
        summary["trials"] = trials = [trial for trial in summary["trials"] if trial["status"] == "COMPLETED"]
    return {
        "seconds": seconds,
        "memory": memory,
        "at_a_time": int(re.search(r"(\d+) trials? at a time", output)[1]),
        "elapsed_seconds": summary["elapsed_seconds"],
        "starts": [trial["started"] for trial in trials],
        "seconds_of_trials": [trial["seconds"] for trial in trials],
        "epochs": [trial["curves"]["seconds"] for trial in trials],
        "scores": [trial["score"] for trial in trials],
        "summary": summary,
        "machine": machine(summary["hardware"], {name: summary["settings"][name] for name in PACKAGES}),
        **{name: summary["best"][name] for name in ACCURACIES},
        **{f"best_four_{name}": summary.get("best_four", {}).get(name) for name in ACCURACIES},
    }


def seconds_per_epoch(row):
    """The mean seconds of an epoch while as many trials run as can, divided by the number of these trials.

    Each trial's first epoch, which is traced, does not count, nor do those at the beginning and the end of the search,
    when fewer trials run; where there are no others, all count.
    """
    spans = [(start, start + seconds) for start, seconds in zip(row["starts"], row["seconds_of_trials"])]
    counted = []
    for start, epochs in zip(row["starts"], row["epochs"]):
        for begin, end in list(itertools.pairwise(itertools.accumulate(epochs, initial=start)))[1:]:
            if sum(first <= begin and end <= last for first, last in spans) == row["at_a_time"]:
                counted.append(end - begin)
    return statistics.mean(counted or itertools.chain(*row["epochs"])) / row["at_a_time"]


class Rows:
    """Measurements, a dictionary each, in a JSON file, if there is a path, that is written after each of them.

    What the file holds is not measured again, so it is to be deleted when what was measured has changed.
    """

    def __init__(self, path):
        self.path, self.rows = path, json.loads(path.read_text()) if path and path.exists() else []

    def find(self, **key):
        """The row with this key, or None."""
        return next((row for row in self.rows if row | key == row), None)

    def get(self, measure, **key):
        """The row with this key; where there is none, measure(**key) returns the rest of it."""
        if row := self.find(**key):
            return row
        self.rows.append(key | measure(**key))
        if self.path:
            draft = self.path.with_suffix(".draft")
            draft.write_text(json.dumps(self.rows))
            draft.replace(self.path)
        return self.rows[-1]


def machine(hardware, versions):
    """One line on what was measured with; the arguments are those of a summary.json."""
    flags = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].split()
    vectors = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    python = f"Python {platform.python_version()}"
    return ", ".join([hardware, " ".join(vectors), python, *map(" ".join, versions.items())])


def spread(values, form=".4f"):
    """Mean and standard deviation as text; without the latter where there is one value only."""
    deviation = f" ± {statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


def table(header, rows):
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in [header, ["---"] * len(header), *rows])
