"""Time, accuracy and memory of this project's random search beside those of the straightforward one in reference.py.

    python benchmarks/speed.py             the full searches, 10 trials each, one after the other
    python benchmarks/speed.py --quick     one trial of three epochs each, twice, in alternating order: for the seconds
                                           per epoch; the project's best model comes on top

Prints a Markdown table. Both try the same hyperparameters in the same order, so that trials can be compared one by one.
Nothing else should run on the machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def run(command):
    """Runs a command; returns the seconds it took, its peak memory in bytes and its output."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, *command], stdout=output, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        output.seek(0)
        if status:
            sys.exit(f"{command[0]} failed with status {os.waitstatus_to_exitcode(status)}")
        return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), output.read()


def run_reference(options):
    """Runs reference.py; returns what table() compares."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory, output = run(["benchmarks/reference.py", "--results-dir", folder, *options])
    result = json.loads(output.splitlines()[-1])
    seconds_in_fit = sum(map(sum, result["epochs"]))
    model_val_accuracy = result["val_accuracy"]  # its best model is the best trial's
    return result | {
        "seconds": seconds, "memory": memory, "seconds_in_fit": seconds_in_fit, "model_val_accuracy": model_val_accuracy
    }


def run_project(options):
    """Runs random_search_tuning.py; returns what table() compares."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory, _ = run(["random_search_tuning.py", "--results-dir", folder, *options])
        summary = json.loads(next(Path(folder).glob("*/summary.json")).read_text())
    return {
        "seconds": seconds,
        "memory": memory,
        "seconds_in_fit": summary["seconds_in_fit"],
        "epochs": [trial["curves"].get("seconds", []) for trial in summary["trials"]],  # none where a trial failed
        "val_accuracy": summary["best"]["val_accuracy"],
        "model_val_accuracy": summary["best_model_training"]["val_accuracy"],
        "test_accuracy": summary["best"]["test_accuracy"],
    }


def table(reference, project):
    """The Markdown table; each argument is a list of runs."""

    def mean(value):
        return statistics.mean(map(value, reference)), statistics.mean(map(value, project))

    rows = []

    def row(name, value, form, ratio=None):
        theirs, ours = mean(value)
        rows.append(f"| {name} | {form(theirs)} | {form(ours)} | {ratio(theirs, ours) if ratio else ''} |")

    def times(theirs, ours):
        return f"{theirs / ours:.2f}"

    row("seconds per search", lambda run: run["seconds"], "{:.0f}".format, times)
    row("epochs in its trials", lambda run: sum(map(len, run["epochs"])), "{:.0f}".format, times)
    row("seconds per epoch of a trial", lambda run: sum(map(sum, run["epochs"])) / sum(map(len, run["epochs"])),
        "{:.2f}".format, times)
    row("share of the time inside fit", lambda run: run["seconds_in_fit"] / run["seconds"], "{:.0%}".format)
    row("best trial's validation accuracy", lambda run: run["val_accuracy"], "{:.4f}".format)
    row("best model's validation accuracy", lambda run: run["model_val_accuracy"], "{:.4f}".format)
    row("best model's test accuracy", lambda run: run["test_accuracy"], "{:.4f}".format)
    row("peak memory, GB", lambda run: run["memory"] / 1e9, "{:.2f}".format, times)
    ratios = [
        statistics.mean(theirs) / statistics.mean(ours)
        for one, other in zip(reference, project)
        for theirs, ours in zip(one["epochs"], other["epochs"])
        if theirs and ours
    ]
    rows.append(f"| seconds per epoch, trial by trial, the smallest ratio | | | {min(ratios):.2f} |")
    return "\n".join(["| | reference | this project | ratio |", "| --- | --- | --- | --- |", *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    options = ["--max-trials", "1", "--epochs", "3"] if quick else []
    reference, project = [run_reference(options)], [run_project(options)]
    if quick:
        project.append(run_project(options))
        reference.append(run_reference(options))
    import search  # only now: TensorFlow's memory and threads are not to weigh on what is measured

    hardware = search.hardware()
    print(f"{hardware['cpu']}, {hardware['cores']} cores; {', '.join(hardware['gpus']) or 'no GPU'}\n")
    print(table(reference, project))


if __name__ == "__main__":
    main()
