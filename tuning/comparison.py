"""The searches of both strategies side by side."""

from tuning import figures
from tuning.command_line import printable
from tuning.environment import kt
from tuning.folder import read_json
from tuning.text import duration, print_table, short, spelled

STRATEGIES = ("random search", "Bayesian optimization")  # in the order of their columns


def compare(folder, summary):
    """Prints a search beside the other strategy's in the same results folder, if there is one, and draws both."""
    found = {summary["strategy"]: summary}
    for path in sorted(folder.parent.glob("*/summary.json")):
        other = read_json(path)
        if {"strategy", "objective", "settings", "elapsed_seconds"} <= other.keys() and problem(other) == problem(summary):
            found.setdefault(other["strategy"], other)
    summaries = [found[strategy] for strategy in STRATEGIES if strategy in found]
    if len(summaries) < 2:
        return
    print()
    print_comparison(summaries)
    objective = kt.Objective(**summary["objective"])
    figure = figures.comparison({each["strategy"]: each["trials"] for each in summaries}, objective)
    figures.save(folder.parent / "comparison.png", figure)


def problem(summary):
    """What two searches must have in common to be compared: the objective and the search space."""
    space = {name: value for name, value in summary["settings"].items() if name.startswith("search space")}
    return summary["objective"], space


def print_comparison(summaries):
    """Prints a table of searches side by side, and the settings in which they differ."""
    objective = summaries[0]["objective"]["name"]
    test = objective.replace("val_", "test_")
    rows = []
    for title, model, metric in (
        (f"best {spelled(objective)}", "best", objective),
        (spelled(test), "best", test),
        (f"{spelled(test)}, best four together", "best_four", test),
    ):
        values = [each.get(model, {}).get(metric) for each in summaries]
        rows.append([title, *("-" if value is None else f"{value:.4f}" for value in values)])
    for name in dict.fromkeys(name for each in summaries for name in each["best"]["hyperparameters"]):
        rows.append([spelled(name), *(short(each["best"]["hyperparameters"].get(name, "-")) for each in summaries)])
    rows.append(["best trial", *(each["best"]["trial"] for each in summaries)])
    rows.append(["total trials", *(len(each["trials"]) for each in summaries)])
    rows.append(["total elapsed time", *(duration(each["elapsed_seconds"]) for each in summaries)])
    print_table(["", *(each["strategy"] for each in summaries)], rows)
    settings = [{name: value for name, value in each["settings"].items() if name != "strategy"} for each in summaries]
    differences = [
        f"{name} ({', '.join(str(each[name]) for each in settings)})"
        for name in settings[0]
        if name in settings[1] and settings[0][name] != settings[1][name]
    ]
    if differences:
        print(printable(f"The settings differ: {'; '.join(differences)}"))
