"""Random search against Bayesian optimisation: both full default searches for seeds 1 to 5, on the real data.

    python benchmarks/study.py [--seeds 1,2,3]    searches, trains the best set of hyperparameters again, and reports;
                                                  the same command goes on with the search that was interrupted
    python benchmarks/study.py --report           the report alone, from the committed files

Each search is a line in searches.csv, each of their trials one in trials.csv, each repeated training of the best set
one in repeated.csv: delete all three when common.py has changed. A search takes 10 minutes. Prints Markdown.
"""

import argparse
import csv
import json
import statistics
import sys

import matplotlib.pyplot as plt
import numpy as np
import scipy.stats

from measuring import ACCURACIES, ROOT, search, spread, table

HERE = ROOT / "benchmarks"
SEEDS = (1, 2, 3, 4, 5)
SCRIPTS = {"random search": "random_search_tuning.py", "Bayesian optimization": "bayesian_tuning.py"}
SEARCHES, TRIALS, REPEATED = (HERE / f"{name}.csv" for name in ("searches", "trials", "repeated"))
HYPERPARAMETERS = ("units", "dropout", "learning_rate", "optimizer")
MEASURES = *ACCURACIES, *(f"best_four_{name}" for name in ACCURACIES), "trials_5_to_10", "epochs"


def read(path):
    """The rows of a CSV file as dictionaries, with numbers where they are numbers; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{name: number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def number(text):
    """The number that a cell holds, else its text; None where it is empty."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return text


def write(path, rows):
    draft = path.with_suffix(".draft")
    with open(draft, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draft.replace(path)


def of(rows, strategy, seed):
    """The rows of one search."""
    return [row for row in rows if (row["strategy"], row["seed"]) == (strategy, seed)]


def run_search(strategy, seed):
    """Runs one search, and adds it to trials.csv and searches.csv."""
    key, found = {"strategy": strategy, "seed": seed}, search(SCRIPTS[strategy], "--seed", seed)
    summary, trials = found["summary"], []
    for trial, score in zip(summary["trials"], found["scores"]):
        cells = {name: trial[name] for name in ("trial", "proposed_by", "best_epoch", "epochs", "seconds")}
        trials.append(key | trial["hyperparameters"] | cells | {"val_accuracy": score})
    others = [row for row in read(TRIALS) if row not in of([row], strategy, seed)]  # not twice after an interruption
    write(TRIALS, others + trials)
    cells = {f"{who}{name}": found[f"{who}{name}"] for who in ("", "best_four_") for name in ACCURACIES}
    cells |= {"seconds": summary["elapsed_seconds"], "seconds_of_trials": sum(found["seconds_of_trials"])}
    cells |= {"epochs": sum(trial["epochs"] for trial in trials), "trial": summary["best"]["trial"]}
    cells |= summary["best"]["hyperparameters"] | {"precision": summary["settings"]["precision"]}
    write(SEARCHES, [*read(SEARCHES), key | cells | {"machine": found["machine"]}])


def repeat_best():
    """Trains the set that was best of all searches, by its validation accuracy, with other seeds: repeated.csv."""
    import trainings  # not with --report: it imports TensorFlow

    best = max(read(SEARCHES), key=lambda row: row["val_accuracy"])
    values = {name: best[name] for name in HYPERPARAMETERS}
    for seed in SEEDS:
        rows = [row for row in read(REPEATED) if row | values == row]  # those of another set are out of date
        if seed not in [row["seed"] for row in rows]:
            accuracies, _ = trainings.train(1000 + seed, values, best["precision"])
            write(REPEATED, [*rows, {"seed": seed, "val_accuracy": max(accuracies)} | values])


def measures_table(searches, seeds):
    """Mean and deviation of each measure, and Bayesian optimisation's mean lead, seed by seed, with Student's t."""
    rows = []
    for name in MEASURES:
        columns = [[row[name] for row in searches if row["strategy"] == strategy] for strategy in SCRIPTS]
        form = ".0f" if name == "epochs" else ".4f"
        leads = [bayesian - random for random, bayesian in zip(*columns)]
        margin = scipy.stats.t.ppf(0.975, len(leads) - 1) * statistics.stdev(leads) / len(leads) ** 0.5
        lead = f"{statistics.mean(leads):+{form}} ± {margin:{form}}"
        ahead = f"{sum(each > 0 for each in leads)} of {len(leads)}"
        rows.append([name.replace("_", " "), *(spread(column, form) for column in columns), lead, ahead])
    header = [f"mean ± standard deviation of {len(seeds)} seeds", *SCRIPTS, "Bayesian lead, 95% interval"]
    return table([*header, "Bayesian ahead"], rows)


def draw_progress(trials, seeds):
    """The best validation accuracy so far: a thin line a search, a thick one for the mean of a strategy."""
    figure, ax = plt.subplots(figsize=(6, 3.8), dpi=150, layout="constrained")
    for strategy, colour in zip(SCRIPTS, ("#0072B2", "#D55E00")):
        scores = [[row["val_accuracy"] for row in of(trials, strategy, seed)] for seed in seeds]
        curves = np.fmax.accumulate(np.array(scores, float), axis=1)
        numbers, mean = range(1, curves.shape[1] + 1), curves.mean(axis=0)
        ax.step(numbers, curves.T, where="post", color=colour, linewidth=1, alpha=0.5)
        ax.step(numbers, mean, where="post", color=colour, linewidth=3.5, label=f"{strategy}: {mean[-1]:.4f}")
    ax.set_ylim(np.nanmin(curves[:, 1]) - 0.001)
    ax.set(xlabel="trial (1 to 4 are the same)", ylabel="best validation accuracy so far")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(HERE / "progress.png")


def print_importance(trials):
    """Which hyperparameter mattered, in the trials of all searches, as a search says it at its end."""
    import trainings  # it imports TensorFlow

    from tuning.report import importance

    hp = trainings.kt.HyperParameters()
    trainings.common.CNN().build(hp)
    records = [
        {"score": row["val_accuracy"], "hyperparameters": {n: row[n] for n in HYPERPARAMETERS}} for row in trials
    ]
    importance([{"trials": records}], hp.space)


def tables():
    """What the committed files say, as Markdown: a table and a sentence; with them, the trials and their seeds."""
    searches = sorted(read(SEARCHES), key=lambda row: row["seed"])
    seeds = [seed for seed in SEEDS if all(of(searches, strategy, seed) for strategy in SCRIPTS)]
    if len(seeds) < 2:
        sys.exit("a report needs two seeds that both strategies have searched")
    searches = [row for row in searches if row["seed"] in seeds]
    trials = [row for row in read(TRIALS) if row["seed"] in seeds]
    for row in searches:
        later = [trial for trial in of(trials, row["strategy"], row["seed"]) if trial["trial"] > 4]
        row["trials_5_to_10"] = statistics.mean(trial["val_accuracy"] for trial in later)
    best, again = max(row["val_accuracy"] for row in searches), [row["val_accuracy"] for row in read(REPEATED)]
    chance = f"The best set of all, with {best:.4f}, was trained again with {len(again)} seeds: {spread(again)}."
    return measures_table(searches, seeds), chance, trials, seeds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [*map(int, text.split(","))], default=SEEDS, help="to search with")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    settings = parser.parse_args()
    if not settings.report:
        for seed in settings.seeds:
            for strategy in SCRIPTS:
                if not of(read(SEARCHES), strategy, seed):
                    run_search(strategy, seed)
        repeat_best()
    measures, chance, trials, seeds = tables()
    print(measures, chance, sep="\n\n")
    draw_progress(trials, seeds)
    print_importance(trials)


if __name__ == "__main__":
    main()
