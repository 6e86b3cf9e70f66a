"""Whole default searches, process start to result: this project's random search beside reference.py, a plain script.

    python benchmarks/speed.py [--store speed.json]             once each, one after the other: an hour and more
    python benchmarks/speed.py --quick [--store quick.json]     the same ratios from a few epochs, twice: 10 minutes
    python benchmarks/speed.py --avx2 ...                       as on a processor with AVX2 only: an emulation

Prints a Markdown table. With --quick, the time of a whole search is extrapolated:

    fixed seconds of a search + rounds x (fixed seconds of a trial + epochs of a trial x seconds of its epoch)

where `rounds` are the ten trials divided by those that run at a time, rounded up. The epochs of a trial are those of
whole searches, below. It does the reference no wrong: the pause, which stretches its epochs (pause.py), gets longer
after the first few. Nothing else should run on the machine. Linux only.

With --avx2, oneDNN, which is off in TensorFlow by itself on such a processor, is off for the reference; ours has it on,
limited to AVX2, and computes in float32. What is not oneDNN's is built for AVX in TensorFlow's wheels anyway.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from pathlib import Path

import joblib

from measuring import ACCURACIES, RANDOM_SEARCH, Rows, run, search, seconds_per_epoch, table

REFERENCE = "reference.py"
TRIALS = 10
EPOCHS = {REFERENCE: 16.4, RANDOM_SEARCH: 14.7}  # of a trial: the reference's from commit 393a5b0, ours as in the study
QUICK_EPOCHS = 6


def measure(script, options, round, avx2):
    """Runs a search once; returns what the table needs of it."""
    if avx2:
        os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "TF_ENABLE_ONEDNN_OPTS": "0" if script == REFERENCE else "1"}
    if script != REFERENCE:
        return search(script, *options)
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory, output = run(f"benchmarks/{script}", *options, "--results-dir", folder)
    result = json.loads(output.splitlines()[-1])
    times = {"seconds": seconds, "elapsed_seconds": sum(result["seconds_of_trials"])}
    return result | times | {"memory": memory, "at_a_time": 1}


def fixed_seconds(row):
    """What does not depend on the number of epochs: the seconds of a search, and of each trial.

    What the first trial of a process needs more than later ones, as XLA's first compilation, is the search's, and so is
    the time until all processes are at work, shared among them.
    """
    count, spent = row["at_a_time"], zip(row["seconds_of_trials"], row["epochs"])
    trials = [seconds - len(epochs) * statistics.mean(epochs[1:] or epochs) for seconds, epochs in spent]
    first, later = statistics.mean(trials[:count]), statistics.mean(trials[count:] or trials)
    late = statistics.mean(start - row["starts"][0] for start in row["starts"][:count])
    return row["seconds"] - row["elapsed_seconds"] + first - later + late, later


def extrapolated(row):
    """The seconds of a whole search, as the docstring at the top says."""
    search_seconds, trial_seconds = fixed_seconds(row)
    trial = trial_seconds + EPOCHS[row["script"]] * seconds_per_epoch(row) * row["at_a_time"]
    return search_seconds + math.ceil(TRIALS / row["at_a_time"]) * trial


def report(columns, quick):
    """Prints the table; `columns` has a list of rows for each program, the reference's first."""
    reference, ours = columns.values()

    def whole(row):
        return extrapolated(row) if quick else row["seconds"]

    def means(value, form):
        found = [[value(row) for row in rows] for rows in columns.values()]
        return ["" if None in each else form.format(statistics.mean(each)) for each in found]

    def ratios(ratio, form):  # one for each round, so that the spread can be seen
        return ["", ", ".join(form.format(ratio(*pair)) for pair in zip(reference, ours))]

    lines = {
        "seconds of a whole search" + ", extrapolated" * quick: means(whole, "{:.0f}"),
        "times as fast as the reference": ratios(lambda one, row: whole(one) / whole(row), "{:.2f}"),
        "trials at a time": means(lambda row: row["at_a_time"], "{:.0f}"),
        "seconds per epoch: of one, divided by the trials at a time": means(seconds_per_epoch, "{:.2f}"),
        "share of the reference's epoch, to be less than 40%": ratios(
            lambda one, row: seconds_per_epoch(row) / seconds_per_epoch(one), "{:.0%}"
        ),
        "fixed seconds of a trial": means(lambda row: fixed_seconds(row)[1], "{:.1f}"),
        "fixed seconds of a search": means(lambda row: fixed_seconds(row)[0], "{:.1f}"),
        "epochs": means(lambda row: sum(map(len, row["epochs"])), "{:.0f}"),
        "peak memory of each process, GB": [rows[0]["memory"] for rows in columns.values()],
    }
    for name in (*ACCURACIES, *(f"best_four_{name}" for name in ACCURACIES)):
        lines[name.replace("_", " ")] = means(lambda row, name=name: row.get(name), "{:.4f}")
    print(f"{ours[0]['machine']}\n\n{table(['', *columns], [[name, *cells] for name, cells in lines.items()])}")
    if quick:
        print(f"\nExtrapolated with {' and '.join(f'{n} epochs a trial of {name}' for name, n in EPOCHS.items())}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs instead of whole searches")
    parser.add_argument("--avx2", action="store_true", help="as on a processor with AVX2 only")
    parser.add_argument("--store", type=Path, metavar="FILE", help="what was measured; the same command goes on")
    settings = parser.parse_args()
    rows, options = Rows(settings.store), {REFERENCE: [], RANDOM_SEARCH: ["--precision", "float32"] * settings.avx2}
    if settings.quick:  # of ours two for each process: the others start after the first one
        for script, trials in {REFERENCE: 2, RANDOM_SEARCH: min(TRIALS, 2 * joblib.cpu_count())}.items():
            options[script] += ["--max-trials", trials, "--epochs", QUICK_EPOCHS]
    columns = {script: [] for script in options}
    for round in range(2 if settings.quick else 1):
        for script in list(options)[:: -1 if round % 2 else 1]:
            key = {"options": options[script], "round": round, "avx2": settings.avx2}
            columns[script].append(rows.get(measure, script=script, **key))
    print("AVX2 only, emulated on " * settings.avx2, end="")
    report(columns, settings.quick)


if __name__ == "__main__":
    main()
