"""How trials and searches are written down: lines, tables, and a csv file."""

import csv
import math
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuning.command_line import printable
from tuning.folder import read_json, whole_file


def duration(seconds):
    """Seconds as people say them: 0h 12m 03s."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}h {minutes % 60:02d}m {seconds:02d}s"


def short(value):
    """The text of a hyperparameter's value: floats with three digits."""
    return printable(f"{value:.3g}" if isinstance(value, float) else value)


def spelled(name):
    """The name of a metric or a hyperparameter as people write it: validation accuracy."""
    return printable(name).replace("val_", "validation ").replace("_", " ")


def describe(values):
    """The hyperparameters of a trial in one line; `values` is a dictionary by their names."""
    return ", ".join(f"{spelled(name)} {short(value)}" for name, value in values.items())


def is_terminal():
    """Whether the output goes to a terminal that can move its cursor."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def print_table(header, rows):
    """Prints lists of cells, the first column aligned to the left, the others to the right."""
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(Text(printable(name)), justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if is_terminal() else 500).print(table)


def print_trials(records, objective):
    """Prints a table of trials, and why some failed."""
    names = list(dict.fromkeys(name for each in records for name in each["hyperparameters"]))
    rows = []
    for each in records:
        values = [short(each["hyperparameters"].get(name, "-")) for name in names]
        epochs = f"{each['best_epoch'] or '-'}/{each['epochs']}"
        score = each["status"].lower() if each["score"] is None else f"{each['score']:.4f}"
        rows.append([each["trial"], *values, epochs, score, round(each["seconds"]), each["proposed_by"]])
    header = ["trial", *map(spelled, names), "epochs", objective.name.replace("_", " "), "seconds", "proposed by"]
    shown = len(header) if any(each["proposed_by"] != "random" for each in records) else -1
    print_table(header[:shown], [row[:shown] for row in rows])
    for each in records:
        if each["message"]:
            print(f"Trial {each['trial']} failed: {each['message']}")


def write_csv(path, records):
    """Writes records of trials with all their digits, without the learning curves."""
    own = [name for name in records[0] if name not in ("hyperparameters", "curves")]
    rows = []
    for each in records:
        values = each["hyperparameters"].items()  # a hyperparameter may be called "epochs"
        rows.append({n: each[n] for n in own} | {n + " (hyperparameter)" * (n in own): value for n, value in values})
    with whole_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)


def print_comparison(folder, summary):
    """Prints a search beside the other strategy's in the same results folder.

    Returns:
        The summaries of both, by their strategies; of one where there is no other of the same problem.
    """

    def problem(each):
        return each["objective"], {name: value for name, value in each["settings"].items() if "search space" in name}

    found = {summary["strategy"]: summary}
    for other in map(read_json, folder.parent.glob("*/summary.json")):
        if other.keys() == summary.keys() and problem(other) == problem(summary):
            found.setdefault(other["strategy"], other)
    if len(found) > 1:
        found = dict(sorted(found.items(), reverse=True))
        objective = summary["objective"]["name"]
        test, rows = objective.replace("val_", "test_"), []
        for model, metric in (("best", objective), ("best", test), ("best_four", objective), ("best_four", test)):
            values = [each[model].get(metric, math.nan) for each in found.values()]
            rows.append([f"{model.replace('_', ' ')}: {spelled(metric)}", *(f"{value:.4f}" for value in values)])
        values = [each["best"]["hyperparameters"] for each in found.values()]
        for name in dict.fromkeys(name for each in values for name in each):
            rows.append([f"best: {spelled(name)}", *(short(each.get(name, "-")) for each in values)])
        rows.append(["trials", *(len(each["trials"]) for each in found.values())])
        rows.append(["elapsed time", *(duration(each["elapsed_seconds"]) for each in found.values())])
        print()
        print_table(["", *found], rows)
        mine, theirs = (each["settings"] for each in found.values())
        names = [n for n in mine if n in theirs and mine[n] != theirs[n] and n != "strategy"]
        if names:
            changes = "; ".join(f"{name} ({mine[name]}, {theirs[name]})" for name in names)
            print(printable(f"The settings differ: {changes}"))
    return found
