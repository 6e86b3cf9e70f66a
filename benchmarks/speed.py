"""Time, accuracy and memory of this project's random search beside those of the straightforward one in reference.py.

    python benchmarks/speed.py [--store speed.json]            the full searches, one after the other: about an hour
    python benchmarks/speed.py --quick [--store quick.json]    two trials of four epochs each, twice, in alternating
                                                               order: for the seconds per epoch

Prints a Markdown table with a column each for the reference, the reference with datasets that can't pause, this project
in one process, and this project with two workers. All try the same hyperparameters. Nothing else should run on the
machine. Linux only.
"""

import argparse
import json
import statistics
import tempfile

from measuring import Rows, add_store, machine, run, search, table

PROGRAMS = {  # the options of each; those of reference.py have results of another form
    "reference": ["reference.py"],
    "reference without the pause": ["reference.py", "--without-pause"],
    "this project": ["random_search_tuning.py"],
    "this project, 2 workers": ["random_search_tuning.py", "--workers", "2"],
}
QUICK = ["--max-trials", "2", "--epochs", "4"]


def measure(program, options, round):
    """Runs a program once; returns what the table shows of it."""
    script, *own = PROGRAMS[program]
    if script == "reference.py":
        with tempfile.TemporaryDirectory() as folder:
            seconds, peaks, output = run(f"benchmarks/{script}", *own, *options, "--results-dir", folder)
        return {"seconds": seconds, "peaks": peaks} | json.loads(output.splitlines()[-1])
    seconds, peaks, summary = search(script, *own, *options)
    return {
        "seconds": seconds,
        "peaks": peaks,
        "epochs": [trial["curves"].get("seconds", []) for trial in summary["trials"]],  # none where a trial failed
        "val_accuracy": summary["best"]["val_accuracy"],
        "test_accuracy": summary["best"]["test_accuracy"],
        "best_four_test_accuracy": summary["best_four"]["test_accuracy"],
        "machine": machine(summary["hardware"], summary["versions"]),
    }


def in_fit(row):
    """The seconds of all epochs; with two workers, those of both."""
    return sum(map(sum, row["epochs"]))


def above_floor(row):
    """The seconds of the epochs above their trial's floor, a quartile, as the printed explanation says."""
    total = 0
    for trial in row["epochs"]:
        epochs = sorted(trial[1:])
        total += sum(max(0, seconds - epochs[len(epochs) // 4]) for seconds in epochs)
    return total


def report(columns):
    """The table and the sentences below it; `columns` has a list of rows for each program."""
    rows = []

    def row(name, value, form, ratio=None):
        means = [statistics.mean(map(value, column)) for column in columns]
        rows.append([name, *map(form.format, means)])
        if ratio:
            rows.append([ratio, *(f"{means[0] / mean:.2f}" for mean in means)])
        return means

    def epochs(each):
        return sum(map(len, each["epochs"]))

    seconds = row("seconds per search", lambda each: each["seconds"], "{:.0f}", "times as fast as the reference")
    counts = row("epochs", epochs, "{:.0f}")
    row("seconds per epoch", lambda each: in_fit(each) / epochs(each), "{:.2f}", "times as fast an epoch")
    processes = [max(1, len(column[0]["peaks"]) - 1) for column in columns]  # without the chief, which trains nothing
    fits = [statistics.mean(in_fit(each) for each in column) for column in columns]
    rows.append([
        "share of the time inside fit", *(f"{a / b / c:.0%}" for a, b, c in zip(fits, seconds, processes))
    ])
    floors = row("seconds above the floor", above_floor, "{:.0f}")
    row("best validation accuracy", lambda each: each["val_accuracy"], "{:.4f}")
    row("test accuracy", lambda each: each["test_accuracy"], "{:.4f}")
    fours = [statistics.mean(each["best_four_test_accuracy"] for each in column) for column in columns[2:]]
    rows.append(["test accuracy of the best four together", "", "", *map("{:.4f}".format, fours)])
    rows.append([
        "peak memory of each process, GB",
        *(", ".join(f"{max(peaks) / 1e9:.2f}" for peaks in zip(*(each["peaks"] for each in column)))
          for column in columns),
    ])
    pause = floors[0] - floors[1] * counts[0] / counts[1]
    return "\n\n".join([
        table(["", *PROGRAMS], rows),
        f"Two workers are {seconds[2] / seconds[3]:.2f} times as fast as one process.",
        "The floor of a trial is the first quartile of its epochs' seconds, the first epoch left out. The reference "
        f"has {floors[0]:.0f} s above it; as many epochs without the pause have {floors[0] - pause:.0f} s. So the "
        f"pause is {pause:.0f} s, {pause / seconds[0]:.0%} of the reference's time.",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    add_store(parser)
    settings = parser.parse_args()
    rows, options, orders = Rows(settings.store), [], [list(PROGRAMS)]
    if settings.quick:
        options, orders = QUICK, [list(PROGRAMS), list(PROGRAMS)[::-1]]
    columns = {program: [] for program in PROGRAMS}
    for round, order in enumerate(orders):
        for program in order:
            columns[program].append(rows.get(measure, program=program, options=options, round=round))
    print(f"{columns['this project'][0]['machine']}\n")
    print(report(list(columns.values())))


if __name__ == "__main__":
    main()
