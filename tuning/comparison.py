"""The searches of both strategies side by side."""

import keras_tuner as kt

from tuning import figures
from tuning.bayesian import BayesianOptimizationOracle
from tuning.files import read_json
from tuning.oracles import RandomSearchOracle
from tuning.text import duration, printable, short, spelled, table

STRATEGIES = (RandomSearchOracle.strategy, BayesianOptimizationOracle.strategy)  # in the order of their columns


def compare(folder, summary):
    """Prints a search beside the other strategy's in the same results folder, if there is one, and draws both."""
    found = {summary["strategy"]: summary}
    for path in sorted(folder.parent.glob("*/summary.json")):
        other = read_json(path)
        if {"strategy", "objective", "settings"} <= other.keys() and problem(other) == problem(summary):
            found.setdefault(other["strategy"], other)
    summaries = [found[strategy] for strategy in STRATEGIES if strategy in found]
    if len(summaries) < 2:
        return
    print("", *comparison_table(summaries), sep="\n")
    objective = kt.Objective(**summary["objective"])
    figure = figures.comparison({each["strategy"]: each["trials"] for each in summaries}, objective)
    # Both searches may end at the same moment, so each has a draft of its own.
    figures.save(folder.parent / "comparison.png", figure, suffix=f"draft_of_{folder.name}")


def problem(summary):
    """What two searches must have in common to be compared: the objective and the search space."""
    space = {name: value for name, value in summary["settings"].items() if name.startswith("search space")}
    return summary["objective"], space


def comparison_table(summaries):
    """The lines of a table of searches side by side, and of the settings in which they differ."""
    objective = summaries[0]["objective"]["name"]
    test = objective.replace("val_", "test_")
    rows = [["", *(each["strategy"] for each in summaries)]]
    for title, model, metric in (
        (f"best {spelled(objective)}", "best", objective),
        (spelled(test), "best", test),
        (f"{spelled(test)}, best four together", "best_four", test),
    ):
        rows.append([title, *(f"{each[model][metric]:.4f}" for each in summaries)])
    for name in summaries[0]["best"]["hyperparameters"]:
        rows.append([name, *(short(each["best"]["hyperparameters"].get(name, "-")) for each in summaries)])
    rows.append(["best trial", *(each["best"]["trial"] for each in summaries)])
    rows.append(["total trials", *(len(each["trials"]) for each in summaries)])
    rows.append(["total elapsed time", *(duration(each["elapsed_seconds"]) for each in summaries)])
    settings = [each["settings"] for each in summaries]
    differences = [
        f"{name} ({', '.join(str(each.get(name)) for each in settings)})"
        for name in settings[0]
        if name in settings[1] and settings[0][name] != settings[1][name]
    ]
    return table(rows) + ([printable(f"The settings differ: {'; '.join(differences)}")] if differences else [])
