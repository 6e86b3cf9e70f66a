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
import storage

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
    with storage.whole_file(path) as draft, open(draft, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(read(path) + rows)


def run_search(strategy, seed, folder):
    """Runs one search, or takes up that of an earlier run, and appends it to trials.csv and searches.csv."""
    command = [sys.executable, HERE.parent / SCRIPTS[strategy], "--seed", str(seed), "--results-dir", folder]
    if subprocess.run(command).returncode:
        sys.exit(1)  # it has said why
    paths = (path / "summary.json" for path in folder.iterdir() if path.is_dir())
    summary = next(each for path in paths if (each := storage.read_json(path)).get("strategy") == strategy)
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
    searches = sorted(read(SEARCHES), key=lambda row: row["seed"])
    seeds = [seed for seed in SEEDS if sum(row["seed"] == seed for row in searches) == len(SCRIPTS)]
    return [row for row in searches if row["seed"] in seeds], seeds


MEASURES = {
    "test_accuracy": "test accuracy",
    "val_accuracy": "best validation accuracy",
    "later_trials": "mean of trials 5 to 10",  # of their validation accuracies
    "seconds": "seconds",
}
GOOD_LEARNING_RATE = 0.002
OPTIMIZERS = ("adam", "rmsprop")


def seeds_needed(effect, power=0.8):
    """The seeds with which a paired t-test at the 5% level finds an effect, in standard deviations, so often."""

    def found(n):  # the power of the two-sided test: Cohen, Statistical Power Analysis, 1988, chapter 2
        critical, shift = scipy.stats.t.ppf(0.975, n - 1), abs(effect) * n**0.5
        return scipy.stats.nct.sf(critical, n - 1, shift) + scipy.stats.nct.cdf(-critical, n - 1, shift)

    return next((n for n in range(2, 10_000) if found(n) >= power), "10,000 or more")


def measures_table(searches, seeds):
    """Mean and standard deviation of each measure, and what can be said of Bayesian optimisation's lead, seed by seed.

    The interval is Student's t, for the mean lead over all seeds there could be.
    """
    lines = [
        f"| mean ± standard deviation of {len(seeds)} seeds | {' | '.join(SCRIPTS)} | Bayesian lead, 95% interval "
        "| Bayesian ahead | seeds to find it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in MEASURES.items():
        columns = [[row[name] for row in searches if row["strategy"] == strategy] for strategy in SCRIPTS]
        form = "{:.0f} ± {:.0f}" if name == "seconds" else "{:.4f} ± {:.4f}"
        cells = [form.format(statistics.mean(column), statistics.stdev(column)) for column in columns]
        if name != "seconds":  # those of a machine that others share
            leads = [bayesian - random for random, bayesian in zip(*columns)]
            low, high = scipy.stats.ttest_1samp(leads, 0).confidence_interval()
            effect = statistics.mean(leads) / statistics.stdev(leads)
            cells += [
                f"{statistics.mean(leads):+.4f}, {low:+.4f} to {high:+.4f}",
                f"{sum(lead > 0 for lead in leads)} of {len(leads)}",
                str(seeds_needed(effect)),
            ]
        lines.append(f"| {title} | {' | '.join(cells + [''] * (5 - len(cells)))} |")
    return "\n".join(lines)


def largest_chance_difference(*groups):
    """What two results of a group differ by at most in 95 of 100 cases, by chance (Student's t, pooled variance)."""
    freedom = sum(len(group) - 1 for group in groups)
    variance = sum(statistics.variance(group) * (len(group) - 1) for group in groups) / freedom
    return scipy.stats.t.ppf(0.975, freedom) * (2 * variance) ** 0.5


def distinct(trials):
    """The trials without the second copy of those with which both strategies start."""
    return [trial for trial in trials if trial["strategy"] == "random search" or trial["proposed_by"] == "surrogate"]


def is_good(trial):
    """Whether the trial's learning rate is high enough for the other hyperparameters to show."""
    return trial["learning_rate"] >= GOOD_LEARNING_RATE


def hyperparameters_table(trials):
    """The mean validation accuracy of trials on both sides of a value, as Markdown."""
    trials = distinct(trials)
    good = list(filter(is_good, trials))
    lines = ["| mean validation accuracy of trials with | | |", "| --- | --- | --- |"]
    for names, chosen, is_first in (
        ((f"learning rate from {GOOD_LEARNING_RATE} on", "below"), trials, is_good),
        (("of the former, dropout of at most 0.2", "more"), good, lambda trial: trial["dropout"] <= 0.2),
        (("more than 256 units", "at most 256"), good, lambda trial: trial["units"] > 256),
        (("Adam", "RMSprop"), good, lambda trial: trial["optimizer"] == "adam"),
    ):
        sides = [[trial["val_accuracy"] for trial in chosen if is_first(trial) == side] for side in (True, False)]
        cells = [f"{statistics.mean(side):.4f} ({len(side)} trials)" for side in sides]
        lines.append(f"| {names[0]} / {names[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report():
    """What the study says, as Markdown: a dictionary from a name to a table or a sentence."""
    searches, seeds = searched_by_both()
    trials = [trial for trial in read(TRIALS) if trial["seed"] in seeds]
    later = [trial for trial in trials if trial["trial"] > 4]
    for row in searches:
        row["later_trials"] = statistics.mean(
            trial["val_accuracy"] for trial in of(later, row["strategy"], row["seed"])
        )
    random, bayesian = (
        [trial["val_accuracy"] for trial in later if trial["strategy"] == strategy and is_good(trial)]
        for strategy in SCRIPTS
    )
    proposed = [trial for trial in later if trial["proposed_by"] == "surrogate"]
    at_the_end = sum(trial["learning_rate"] == 0.01 for trial in proposed)
    found = [[row["test_accuracy"] for row in searches if row["strategy"] == strategy] for strategy in SCRIPTS]
    repeated = [row["test_accuracy"] for row in read(REPEATED)]
    return {
        "measures": measures_table(searches, seeds),
        "learning rates": f"of the {len(proposed)} trials that the process chose, {len(bayesian)} have a learning rate "
        f"of at least {GOOD_LEARNING_RATE} ({at_the_end} exactly 0.01), of as many random ones {len(random)}. Among "
        f"these, both score alike, {statistics.mean(bayesian):.4f} and {statistics.mean(random):.4f}",
        "noise": f"trained again with {len(repeated)} seeds, they reach {statistics.mean(repeated):.4f} ± "
        f"{statistics.stdev(repeated):.4f} on the test images. In 95 of 100 cases two such trainings differ by less "
        f"than {largest_chance_difference(repeated):.3f}, two searches with one strategy by less than "
        f"{largest_chance_difference(*found):.3f}",
        "hyperparameters": hyperparameters_table(trials),
    }


def progress_figure(trials):
    """The best validation accuracy so far: a thin line a search, a thick one for the mean of a strategy."""
    _, seeds = searched_by_both()
    figure = results.empty_figure(3.8)
    ax = figure.subplots()
    for strategy, colour, style in zip(SCRIPTS, (results.BLUE, results.VERMILLION), ("-", "--")):
        curves = np.array([results.best_so_far(of(trials, strategy, seed)) for seed in seeds])
        numbers = range(1, curves.shape[1] + 1)
        mean = curves.mean(axis=0)
        ax.step(numbers, curves.T, style, where="post", color=colour, linewidth=1, alpha=0.5)
        ax.step(numbers, mean, style, where="post", color=colour, linewidth=3.5, label=f"{strategy}: {mean[-1]:.4f}")
    ax.axvspan(1, 5, color=results.GREY, alpha=0.15, linewidth=0)
    ax.text(3, 0.96, "trials 1 to 4: the same", transform=ax.get_xaxis_transform(), ha="center", va="top")
    ax.set_ylim(curves[:, 3].min() - 0.003)  # what lies below is the same for both strategies
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=f"best {results.VAL_ACCURACY} so far")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def hyperparameters_figure(trials):
    """Validation accuracy against each hyperparameter; but for the learning rate, of the trials with a good one."""
    figure = results.empty_figure(6)
    axes = figure.subplot_mosaic([["learning_rate"] * 3, ["dropout", "units", "optimizer"]])
    chance = np.random.default_rng(0)
    for name, ax in axes.items():
        chosen = distinct(trials) if name == "learning_rate" else list(filter(is_good, distinct(trials)))
        for proposer, (colour, marker) in results.PROPOSERS.items():
            points = [trial for trial in chosen if trial["proposed_by"] == proposer]
            x = np.array([OPTIMIZERS.index(trial[name]) if name == "optimizer" else trial[name] for trial in points])
            if name in ("dropout", "optimizer"):
                x = x + chance.uniform(-0.03, 0.03, len(x)) * np.ptp(x)  # aside, so that all can be seen
            y = [trial["val_accuracy"] for trial in points]
            label = {"random": "random", "surrogate": "proposed by the Gaussian process"}[proposer]
            ax.scatter(x, y, 30, colour, marker=marker, alpha=0.7, edgecolors="white", linewidths=0.4, label=label)
        ax.set_xlabel(results.LABELS.get(name, name))
    axes["learning_rate"].axvline(GOOD_LEARNING_RATE, color=results.GREY, linestyle=":")
    axes["learning_rate"].set(xscale="log", ylabel=results.VAL_ACCURACY)
    axes["learning_rate"].legend(loc="lower right", frameon=False)
    axes["optimizer"].set_xticks(range(2), OPTIMIZERS)
    axes["optimizer"].margins(x=0.5)
    axes["dropout"].set_ylabel(results.VAL_ACCURACY)
    axes["units"].set_title(f"only learning rates from {GOOD_LEARNING_RATE} on", fontsize=10)
    for name in ("units", "optimizer"):
        axes[name].sharey(axes["dropout"])
        axes[name].tick_params(labelleft=False)
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
    if min(len(searched_by_both()[1]), len(read(REPEATED))) < 2:
        sys.exit("too few seeds for a report: run benchmarks/study.py without --report")
    results.save_figure(HERE / "progress.png", progress_figure(trials))
    results.save_figure(HERE / "hyperparameters.png", hyperparameters_figure(trials))
    print(*report().values(), sep="\n\n")


if __name__ == "__main__":
    main()
