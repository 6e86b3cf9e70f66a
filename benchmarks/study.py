"""Random search against Bayesian optimisation: both full default searches for seeds 1 to 5, on the real data.

    python benchmarks/study.py             searches, trains the best hyperparameters again, and reports; goes on where
                                           it was interrupted
    python benchmarks/study.py --report    the tables and pictures from the committed files alone

Each search is a line in searches.csv, each of their trials one in trials.csv, each repeated training of the best
hyperparameters one in repeated.csv. Both strategies start from the same four trials, so they are compared seed by seed;
the report is of the seeds that both have searched so far.
"""

import argparse
import contextlib
import csv
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import common  # first: it sets up TensorFlow before anything else imports it

import keras
import numpy as np
import scipy.stats
from matplotlib.ticker import MaxNLocator

import results
import search

SEEDS = range(1, 6)
SCRIPTS = {"random search": "random_search_tuning.py", "Bayesian optimization": "bayesian_tuning.py"}
SEARCHES, TRIALS, REPEATED = (HERE / name for name in ("searches.csv", "trials.csv", "repeated.csv"))


def read(path):
    """The rows of a CSV file as dictionaries, with numbers where they are numbers; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{name: number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def number(text):
    """The number that a cell holds, else its text; None where it is empty."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text or None


def of(rows, strategy, seed):
    """The rows of one search."""
    return [row for row in rows if (row["strategy"], row["seed"]) == (strategy, seed)]


def append(path, rows):
    """Adds rows to a CSV file, all or none."""
    with search.whole_file(path) as draft, open(draft, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(read(path) + rows)


def run_search(strategy, seed, folder):
    """Runs one search, or takes up that of an earlier run, and appends it to trials.csv and searches.csv."""
    command = [sys.executable, HERE.parent / SCRIPTS[strategy], "--seed", str(seed), "--results-dir", folder]
    if subprocess.run(command).returncode:
        sys.exit(1)  # it has said why
    paths = (path / "summary.json" for path in folder.iterdir() if path.is_dir())
    summary = next(each for path in paths if (each := search.read_json(path)).get("strategy") == strategy)
    best, training = summary["best"], summary["best_model_training"]
    hardware = training["hardware"]
    key = {"strategy": strategy, "seed": seed}
    if not of(read(TRIALS), strategy, seed):
        append(TRIALS, [
            key | {name: value for name, value in trial.items() if name != "curves"}
            for trial in summary["trials"]
        ])
    append(SEARCHES, [key | {
        "val_accuracy": best["val_accuracy"],
        "best_model_val_accuracy": training["val_accuracy"],
        "test_accuracy": best["test_accuracy"],
        "seconds": summary["elapsed_seconds"],
        "trial": best["trial"],
        **best["hyperparameters"],
        "precision": summary["precision"],
        "hardware": ", ".join([hardware["cpu"], f"{hardware['cores']} cores", *hardware["gpus"]]),
        "versions": ", ".join(f"{name} {version}" for name, version in training["versions"].items()),
    }])


def repeat_training(seed):
    """Trains the best hyperparameters of all searches again with another seed and appends it to repeated.csv."""
    best = max(read(SEARCHES), key=lambda row: row["best_model_val_accuracy"])
    hp = common.search_space()
    hp.values = {name: best[name] for name in results.HYPERPARAMETERS}
    settings = common.argument_parser("").parse_args(["--precision", best["precision"]])
    train, validation = common.load_train_data()
    keras.utils.set_random_seed(1000 + seed)
    ensemble, _ = common.CNN(settings).train_final(hp, *train, validation_data=validation)
    model = common.average(ensemble, "repeated")
    accuracies = [
        model.evaluate(*data, batch_size=1000, verbose=0)[1] for data in (validation, common.load_test_data())
    ]
    append(REPEATED, [{"seed": seed, "val_accuracy": accuracies[0], "test_accuracy": accuracies[1], **hp.values}])


def searched_by_both():
    """The rows of searches.csv whose seeds both strategies have searched, and these seeds."""
    searches = read(SEARCHES)
    seeds = [seed for seed in SEEDS if sum(row["seed"] == seed for row in searches) == len(SCRIPTS)]
    return [row for row in searches if row["seed"] in seeds], seeds


def paired_difference(searches, seeds, name):
    """Bayesian optimisation's mean lead over random search, seed by seed, and what can be said of it.

    Returns:
        The mean difference, the bounds of its 95% interval (Student's t), and the number of seeds whose interval would
        exclude zero if mean and standard deviation stayed what they are.
    """
    values = {(row["strategy"], row["seed"]): row[name] for row in searches}
    random, bayesian = SCRIPTS
    differences = [values[bayesian, seed] - values[random, seed] for seed in seeds]
    mean, deviation = statistics.mean(differences), statistics.stdev(differences)
    low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval()
    enough = next(
        (n for n in range(2, 100_000) if scipy.stats.t.ppf(0.975, n - 1) * deviation / n**0.5 < abs(mean)), None
    )
    return mean, low, high, enough


def hyperparameters_table(trials):
    """The mean validation accuracy of trials on both sides of a value, as Markdown.

    The learning rate decides so much that the others are compared among the trials with good ones.
    """
    trials = {tuple(trial[name] for name in results.HYPERPARAMETERS): trial for trial in trials}.values()  # each once
    good = [trial for trial in trials if trial["learning_rate"] >= 0.002]
    lines = ["| mean validation accuracy of trials with | | |", "| --- | --- | --- |"]
    for names, chosen, is_first in (
        (("learning rate below 0.002", "from 0.002 on"), trials, lambda trial: trial["learning_rate"] < 0.002),
        (("and then, at most 256 units", "more"), good, lambda trial: trial["units"] <= 256),
        (("dropout of at most 0.2", "more"), good, lambda trial: trial["dropout"] <= 0.2),
        (("Adam", "RMSprop"), good, lambda trial: trial["optimizer"] == "adam"),
    ):
        sides = [[trial["val_accuracy"] for trial in chosen if is_first(trial) == side] for side in (True, False)]
        cells = [f"{statistics.mean(side):.4f} ({len(side)} trials)" for side in sides]
        lines.append(f"| {names[0]} / {names[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report():
    """What the study says of the two strategies, as Markdown."""
    (searches, seeds), trials = searched_by_both(), read(TRIALS)
    lines = [f"| mean and standard deviation over {len(seeds)} seeds | {' | '.join(SCRIPTS)} |", "| --- | --- | --- |"]
    for row in searches:
        row["later_trials"] = statistics.mean(
            trial["val_accuracy"] for trial in of(trials, row["strategy"], row["seed"]) if trial["trial"] > 4
        )
    accuracies = [
        ("later_trials", "mean validation accuracy of trials 5 to 10"),
        ("val_accuracy", "best validation accuracy"),
        ("test_accuracy", "test accuracy"),
    ]
    for name, title in (*accuracies, ("seconds", "seconds")):
        form = "{:.0f} ± {:.0f}" if name == "seconds" else "{:.4f} ± {:.4f}"
        cells = [[row[name] for row in searches if row["strategy"] == strategy] for strategy in SCRIPTS]
        cells = [form.format(statistics.mean(cell), statistics.stdev(cell)) for cell in cells]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append("")
    for name, title in accuracies:
        mean, low, high, enough = paired_difference(searches, seeds, name)
        verdict = "tell" if low * high > 0 else "cannot tell"
        lines.append(
            f"- Bayesian optimisation's lead in {title}, paired by seed: {mean:+.4f}, 95% interval {low:+.4f} to "
            f"{high:+.4f}. {len(seeds)} seeds {verdict} the two apart; at this mean and spread it takes {enough}."
        )
    repeated = [row["test_accuracy"] for row in read(REPEATED)]
    if len(repeated) > 1:
        lines.append(
            f"- The best hyperparameters trained again with {len(repeated)} seeds: test accuracy "
            f"{statistics.mean(repeated):.4f} ± {statistics.stdev(repeated):.4f}."
        )
    return "\n".join(lines)


def progress_figure(trials):
    """The best validation accuracy so far after each trial: mean over the seeds, and the range between them."""
    _, seeds = searched_by_both()
    figure = results.empty_figure(3.8)
    ax = figure.subplots()
    for strategy, colour, style in zip(SCRIPTS, (results.BLUE, results.VERMILLION), ("-", "--")):
        curves = np.array([
            results.best_so_far(of(trials, strategy, seed)) for seed in seeds
        ])
        numbers = range(1, curves.shape[1] + 1)
        ax.plot(numbers, curves.mean(axis=0), style, color=colour, linewidth=2.5, label=strategy)
        ax.fill_between(numbers, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=f"best {results.VAL_ACCURACY} so far")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", type=Path, default=HERE / "study_results", help="of the searches")
    parser.add_argument("--report", action="store_true")
    settings = parser.parse_args()
    if not settings.report:
        searched = {(row["strategy"], row["seed"]) for row in read(SEARCHES)}
        for seed in SEEDS:
            for strategy in SCRIPTS:
                if (strategy, seed) not in searched:
                    run_search(strategy, seed, settings.results_dir / f"seed_{seed}")
        repeated = {row["seed"] for row in read(REPEATED)}
        for seed in SEEDS:
            if seed not in repeated:
                repeat_training(seed)
    trials = read(TRIALS)
    if len(searched_by_both()[1]) < 2:
        sys.exit("too few seeds for a report: run benchmarks/study.py without --report")
    results.save_figure(HERE / "progress.png", progress_figure(trials))
    results.save_figure(HERE / "hyperparameters.png", results.hyperparameters_figure(trials))
    print(report(), hyperparameters_table(trials), sep="\n\n")


if __name__ == "__main__":
    main()
