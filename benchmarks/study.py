"""Random search against Bayesian optimisation: both full default searches for seeds 1 to 5, on the real data.

    python benchmarks/study.py [--seeds 1,2,3]    searches, trains the best set of hyperparameters again, and reports;
                                                  the same command goes on where it was interrupted
    python benchmarks/study.py --report           the tables and pictures from the committed files alone

Each search is a line in searches.csv, each of their trials one in trials.csv, each repeated training of the best set
one in repeated.csv; short_trials.csv has the 4-epoch trials of this project's first version, which drew the same sets.
Both strategies start from the same four trials, so they are compared seed by seed; the report is of the seeds that both
have searched so far, two or more. A search takes about 10 minutes. Prints Markdown, and draws progress.png,
hyperparameters.png and short_trials.png.
"""

import argparse
import contextlib
import csv
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import trainings  # first: it sets up TensorFlow
import common

import keras
import keras_tuner as kt
import numpy as np
import scipy.stats
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from measuring import ROOT, machine, spread, table
from tuning import figures
from tuning.files import read_json, whole_file
from tuning.text import spelled

HERE = ROOT / "benchmarks"
SEEDS = (1, 2, 3, 4, 5)
SCRIPTS = {"random search": "random_search_tuning.py", "Bayesian optimization": "bayesian_tuning.py"}
SEARCHES, TRIALS, REPEATED, SHORT_TRIALS = (
    HERE / f"{name}.csv" for name in ("searches", "trials", "repeated", "short_trials")
)
SAME_TRIALS = 4  # of both strategies, the first ones
HYPERPARAMETERS = tuple(trainings.HYPERPARAMETERS)
OBJECTIVE = kt.Objective("val_accuracy", "max")


# --- Measuring --------------------------------------------------------------------------------------------------------


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


def write(path, rows):
    """Writes a CSV file, all or nothing."""
    with whole_file(path) as draft, open(draft, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def of(rows, strategy, seed):
    """The rows of one search."""
    return [row for row in rows if (row["strategy"], row["seed"]) == (strategy, seed)]


def run_search(strategy, seed, folder):
    """Runs one search, or takes up that of an earlier run, and adds it to trials.csv and searches.csv."""
    command = [sys.executable, ROOT / SCRIPTS[strategy], "--seed", str(seed), "--results-dir", folder]
    if subprocess.run(command).returncode:
        sys.exit(1)  # it has said why
    summaries = map(read_json, folder.glob("*/summary.json"))
    summary = next(each for each in summaries if each.get("strategy") == strategy)
    key = {"strategy": strategy, "seed": seed}
    trials = []
    for trial in summary["trials"]:
        cells = {name: value for name, value in trial.items() if name not in ("curves", "hyperparameters")}
        trials.append(key | trial["hyperparameters"] | cells)
    others = [row for row in read(TRIALS) if row not in of([row], strategy, seed)]  # not twice after an interruption
    write(TRIALS, others + trials)
    best, four = summary["best"], summary["best_four"]
    write(SEARCHES, read(SEARCHES) + [key | {
        "val_accuracy": best["val_accuracy"],
        "test_accuracy": best["test_accuracy"],
        "best_four_val_accuracy": four["val_accuracy"],
        "best_four_test_accuracy": four["test_accuracy"],
        "seconds": summary["elapsed_seconds"],
        "epochs": sum(trial["epochs"] for trial in trials),
        "trial": best["trial"],
        **best["hyperparameters"],
        "precision": summary["settings"]["precision"],
        "machine": machine(summary["hardware"], summary["versions"]),
    }])


def repeat_best():
    """Trains the set that was best of all searches, by its validation accuracy, with other seeds: repeated.csv."""
    best = max(read(SEARCHES), key=lambda row: row["val_accuracy"])
    values = {name: best[name] for name in HYPERPARAMETERS}
    for seed in SEEDS:
        rows = [row for row in read(REPEATED) if row | values == row]  # those of another set are out of date
        if seed in [row["seed"] for row in rows]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "best.weights.h5"
            best_epoch = keras.callbacks.ModelCheckpoint(
                path, "val_accuracy", save_best_only=True, save_weights_only=True
            )
            model, curves = trainings.train(1000 + seed, best["precision"], values, callbacks=[best_epoch])
            model.load_weights(path)
        _, accuracy = model.evaluate(*common.load_test_data(), batch_size=1000, verbose=0)
        row = {"seed": seed, "val_accuracy": max(curves["val_accuracy"]), "test_accuracy": accuracy}
        write(REPEATED, [*rows, row | values])


# --- Reporting --------------------------------------------------------------------------------------------------------


def searched_by_both():
    """The rows of searches.csv whose seeds both strategies have searched, and these seeds."""
    searches = sorted(read(SEARCHES), key=lambda row: row["seed"])
    seeds = [seed for seed in SEEDS if all(of(searches, strategy, seed) for strategy in SCRIPTS)]
    return [row for row in searches if row["seed"] in seeds], seeds


def distinct(trials):
    """The completed trials without the second copy of those with which both strategies start."""
    return [
        trial for trial in trials
        if trial["val_accuracy"] is not None
        and (trial["strategy"] == "random search" or trial["proposed_by"] == "surrogate")
    ]


MEASURES = {
    "test_accuracy": "test accuracy",
    "val_accuracy": "best validation accuracy",
    "later_trials": "mean validation accuracy of trials 5 to 10",
    "best_four_test_accuracy": "test accuracy of the best four together",
    "seconds": "seconds",
}


def seeds_needed(leads, power=0.8):
    """The seeds with which a paired t-test at the 5% level finds such a lead so often."""
    effect = abs(statistics.mean(leads)) / max(statistics.stdev(leads), 1e-9)

    def found(n):  # the power of the two-sided test: Cohen, Statistical Power Analysis, 1988, chapter 2
        critical, shift = scipy.stats.t.ppf(0.975, n - 1), effect * n**0.5
        return scipy.stats.nct.sf(critical, n - 1, shift) + scipy.stats.nct.cdf(-critical, n - 1, shift)

    return next((n for n in range(2, 10_000) if found(n) >= power), "10,000 or more")


def measures_table(searches, seeds):
    """Mean and standard deviation of each measure, and what can be said of Bayesian optimisation's lead, seed by seed.

    The interval is Student's t, for the mean lead over all seeds there could be.
    """
    rows = []
    for name, title in MEASURES.items():
        columns = [[row[name] for row in searches if row["strategy"] == strategy] for strategy in SCRIPTS]
        cells = [spread(column, ".0f" if name == "seconds" else ".4f") for column in columns]
        if name == "seconds":  # those of a machine that others share
            rows.append([title, *cells, "", "", ""])
            continue
        leads = [bayesian - random for random, bayesian in zip(*columns)]
        margin = scipy.stats.t.ppf(0.975, len(leads) - 1) * statistics.stdev(leads) / len(leads) ** 0.5
        low, lead, high = (statistics.mean(leads) + each for each in (-margin, 0, margin))
        ahead = f"{sum(each > 0 for each in leads)} of {len(leads)}"
        rows.append([title, *cells, f"{lead:+.4f}, {low:+.4f} to {high:+.4f}", ahead, seeds_needed(leads)])
    header = [f"mean ± standard deviation of {len(seeds)} seeds", *SCRIPTS]
    return table([*header, "Bayesian lead, 95% interval", "Bayesian ahead", "seeds to find it"], rows)


def best_four(searches):
    """What the mean of the best four models gains over the best one."""
    gains = [row["best_four_test_accuracy"] - row["test_accuracy"] for row in searches]
    return (
        f"the best four together are ahead of the best one in {sum(gain > 0 for gain in gains)} of {len(gains)} "
        f"searches, on the test images by {spread(gains)} ({min(gains):+.4f} to {max(gains):+.4f})"
    )


def largest_chance_difference(*groups):
    """What two results of a group differ by at most in 95 of 100 cases, by chance (Student's t, pooled variance)."""
    freedom = sum(len(group) - 1 for group in groups)
    variance = sum(statistics.variance(group) * (len(group) - 1) for group in groups) / freedom
    return scipy.stats.t.ppf(0.975, freedom) * (2 * variance) ** 0.5


def chance(searches):
    """What chance alone does: between trainings of the best set, and between searches."""
    repeated, best = read(REPEATED), max(read(SEARCHES), key=lambda row: row["val_accuracy"])
    found = [[row["test_accuracy"] for row in searches if row["strategy"] == strategy] for strategy in SCRIPTS]
    between = f"two searches with one strategy by less than {largest_chance_difference(*found):.3f}"
    if len(repeated) < 2:
        return f"in 95 of 100 cases, the test accuracies differ, by chance, between {between}"
    val, test = ([row[name] for row in repeated] for name in ("val_accuracy", "test_accuracy"))
    return (
        f"the best set of all searches, with {best['val_accuracy']:.4f} on the validation images and "
        f"{best['test_accuracy']:.4f} on the test images, was trained again with {len(repeated)} seeds: {spread(val)} "
        f"and {spread(test)}. In 95 of 100 cases two such trainings differ, by chance, by less than "
        f"{largest_chance_difference(test):.3f} on the test images, {between}"
    )


def search_space():
    """The hyperparameters, kt.engine.hyperparameters.HyperParameter each."""
    hp = kt.HyperParameters()
    common.CNN().build(hp)
    return hp.space


def place(hp, trial):
    """Where in its range a trial's hyperparameter lies: from 0, the lower end, to 1, the upper one."""
    if not hasattr(hp, "min_value"):
        return hp.values.index(trial[hp.name]) / (len(hp.values) - 1)
    scale = math.log if hp.sampling == "log" else float
    low, value, high = map(scale, (hp.min_value, trial[hp.name], hp.max_value))
    return round((value - low) / (high - low), 9)


def effects(trials):
    """What each hyperparameter does to the validation accuracy: least squares, quadratic in each one's place().

    Returns:
        The share of the variance that the fit explains, and for each hyperparameter a tuple: how much of that share is
        lost without it, its places, and the trials' accuracies as if the other hyperparameters were average.
    """
    accuracies = np.array([trial["val_accuracy"] for trial in trials])
    y = accuracies - accuracies.mean()
    places = {hp.name: np.array([place(hp, trial) for trial in trials]) for hp in search_space()}
    columns = {name: np.stack([x - x.mean(), x**2 - (x**2).mean()], axis=1) for name, x in places.items()}

    def fit(names):
        """The part of each hyperparameter in the fitted accuracies, and the share of the variance explained."""
        factors = np.linalg.lstsq(np.concatenate([columns[name] for name in names], axis=1), y)[0]
        parts = {name: columns[name] @ each for name, each in zip(names, np.split(factors, len(names)))}
        return parts, 1 - np.sum((y - sum(parts.values())) ** 2) / np.sum(y**2)

    parts, share = fit(list(columns))
    return share, {
        name: (
            share - fit([other for other in columns if other != name])[1],
            places[name],
            accuracies - sum(part for other, part in parts.items() if other != name),
        )
        for name in columns
    }


def hyperparameters_table(trials):
    """For each hyperparameter, the mean accuracies in the thirds of its range, as if the others were average."""
    share, found = effects(trials)
    rows = []
    for name, (lost, x, y) in found.items():
        third = np.minimum((x * 3).astype(int), 2)
        cells = [f"{y[third == i].mean():.4f} ({sum(third == i)})" if any(third == i) else "" for i in range(3)]
        name = "optimizer (Adam, RMSprop)" if name == "optimizer" else spelled(name)
        rows.append([name, *cells, f"{lost:.0%}"])
    title = f"mean validation accuracy of {len(trials)} trials (how many), the other hyperparameters being average"
    thirds = "lower third of the range", "middle", "upper third"
    return table([title, *thirds, f"share of the variance that only it explains, of {share:.0%}"], rows)


def process(trials):
    """Where the Gaussian process goes."""
    proposed = [trial for trial in distinct(trials) if trial["proposed_by"] == "surrogate"]
    if not proposed:
        return "the process has proposed no trial"
    random = [trial for trial in distinct(trials) if trial["proposed_by"] == "random" and trial["trial"] > SAME_TRIALS]
    edges = [  # within 2% of its range
        f"{spelled(hp.name)} {sum(not 0.02 < place(hp, trial) < 0.98 for trial in proposed)}"
        for hp in search_space() if hasattr(hp, "min_value")
    ]
    rates, theirs = (
        np.quantile([trial["learning_rate"] for trial in each], [0, 0.25, 0.5, 0.75, 1]) for each in (proposed, random)
    )
    means = [statistics.mean(trial["val_accuracy"] for trial in each) for each in (proposed, random)]
    return (
        f"the {len(proposed)} sets that the process proposed have learning rates from {rates[0]:.2g} to "
        f"{rates[4]:.2g}; half of them are between {rates[1]:.2g} and {rates[3]:.2g}, the median is {rates[2]:.2g}. Of "
        f"the {len(random)} random sets in their place half are between {theirs[1]:.2g} and {theirs[3]:.2g}. Of the "
        f"{len(proposed)}, at an edge of its range are: {', '.join(edges)}. Their mean validation accuracy is "
        f"{means[0]:.4f}, that of the random ones {means[1]:.4f}"
    )


def pairs(trials):
    """The random sets that were trained in both versions: tuples of the short trial and the one of full length."""
    short = {(row["seed"], row["trial"]): row for row in read(SHORT_TRIALS) if row["strategy"] == "random search"}
    found = []
    for trial in distinct(trials):
        before = short.get((trial["seed"], trial["trial"]))
        if trial["proposed_by"] == "random" and before and all(
            before[name] == trial[name] or name != "optimizer" and math.isclose(before[name], trial[name])
            for name in HYPERPARAMETERS
        ):
            found.append((before, trial))
    return found


def scores(both):
    """The validation accuracies of pairs(), two lists."""
    return [[trial["val_accuracy"] for trial in column] for column in zip(*both)]


def short_trials(trials):
    """How the first version's 4-epoch trials rank what full-length trials rank."""
    both = pairs(trials)
    if len(both) < 3:
        return "fewer than three sets were trained in both versions"
    correlation, p = scipy.stats.spearmanr(*scores(both))
    chosen, best, each = [], [], []
    for seed in dict.fromkeys(trial["seed"] for _, trial in both):
        short, full = scores([pair for pair in both if pair[1]["seed"] == seed])
        chosen.append(full[np.argmax(short)])
        best.append(max(full))
        each.append(f"{scipy.stats.spearmanr(short, full).statistic:.2f}")
    return (
        f"the {len(both)} random sets rank after the first version's 4 epochs as at full length with a correlation of "
        f"{correlation:.2f} (Spearman, p = {p:.2g}; seed by seed {', '.join(each)}). The set that was best after 4 "
        f"epochs reaches {statistics.mean(chosen):.4f} at full length, the best one {statistics.mean(best):.4f} "
        f"(validation accuracy, mean of {len(best)} seeds)"
    )


def report():
    """What the study says, as Markdown: a dictionary from a name to a table or a sentence."""
    searches, seeds = searched_by_both()
    trials = [trial for trial in read(TRIALS) if trial["seed"] in seeds]
    for row in searches:
        row["later_trials"] = statistics.mean(
            trial["val_accuracy"] for trial in of(trials, row["strategy"], row["seed"])
            if trial["trial"] > SAME_TRIALS and trial["val_accuracy"] is not None
        )
    return {
        "measures": measures_table(searches, seeds),
        "best four": best_four(searches),
        "chance": chance(searches),
        "hyperparameters": hyperparameters_table(distinct(trials)),
        "process": process(trials),
        "short trials": short_trials(trials),
    }


# --- Pictures ---------------------------------------------------------------------------------------------------------


def progress_figure(trials):
    """The best validation accuracy so far: a thin line a search, a thick one for the mean of a strategy."""
    seeds = sorted({trial["seed"] for trial in trials})
    figure = figures.new(3.8)
    ax = figure.subplots()
    for strategy, colour, style in zip(SCRIPTS, (figures.BLUE, figures.VERMILLION), ("-", "--")):
        curves = np.array([figures.best_so_far(of(trials, strategy, seed), OBJECTIVE) for seed in seeds])
        numbers = range(1, curves.shape[1] + 1)
        mean = curves.mean(axis=0)
        ax.step(numbers, curves.T, style, where="post", color=colour, linewidth=1, alpha=0.5)
        ax.step(numbers, mean, style, where="post", color=colour, linewidth=3.5, label=f"{strategy}: {mean[-1]:.4f}")
    ax.axvspan(1, SAME_TRIALS + 1, color=figures.GREY, alpha=0.15, linewidth=0)
    ax.text(SAME_TRIALS / 2 + 1, 1.01, "trials 1 to 4: the same", transform=ax.get_xaxis_transform(), ha="center")
    ax.set_ylim(np.nanmin(curves[:, 1]) - 0.001)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel="best validation accuracy so far")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def hyperparameters_figure(trials):
    """The accuracy of each distinct trial against each hyperparameter, as if the others were average."""
    trials = distinct(trials)
    _, found = effects(trials)
    figure = figures.new(5.6)
    axes = figure.subplots(2, 2, sharey=True)
    by_chance = np.random.default_rng(0)
    proposers = np.array([trial["proposed_by"] for trial in trials])
    for ax, hp in zip(axes.flat, sorted(search_space(), key=lambda hp: -found[hp.name][0])):
        lost, _, y = found[hp.name]
        is_number = hasattr(hp, "min_value")
        x = np.array([trial[hp.name] if is_number else hp.values.index(trial[hp.name]) for trial in trials])
        if hp.name in ("dropout", "optimizer"):
            x = x + by_chance.uniform(-0.04, 0.04, len(x)) * np.ptp(x)  # aside, so that all can be seen
        for proposer, (colour, marker, label) in figures.PROPOSERS.items():
            chosen = proposers == proposer
            ax.scatter(x[chosen], y[chosen], 30, colour, marker=marker, alpha=0.7, edgecolors="white", linewidths=0.4,
                       label=label if ax is axes[0, 0] else None)
        ax.set_xlabel(f"{spelled(hp.name)} (explains {lost:.0%})")
        if getattr(hp, "sampling", None) == "log":
            ax.set_xscale("log")
        if not is_number:
            ax.set_xticks(range(len(hp.values)), hp.values)
            ax.margins(x=0.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy,\nthe others being average")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def short_trials_figure(trials):
    """The first version's 4-epoch scores against those of full length; the colour is the learning rate."""
    both = pairs(trials)
    figure = figures.new(4.2)
    ax = figure.subplots()
    rates = [trial["learning_rate"] for _, trial in both]
    points = ax.scatter(
        *scores(both), 55, rates, norm=LogNorm(1e-4, 1e-2), cmap="viridis", edgecolors=figures.BLACK, linewidths=0.5
    )
    figure.colorbar(points, label="learning rate", ticks=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2], format="%g").minorticks_off()
    correlation = scipy.stats.spearmanr(*scores(both)).statistic
    ax.set_title(f"{len(both)} random sets, rank correlation {correlation:.2f}", fontsize=10)
    ax.set(xlabel="validation accuracy after 4 epochs (first version)", ylabel="validation accuracy at full length")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [*map(int, text.split(","))], default=SEEDS, help="to search with")
    parser.add_argument("--results-dir", type=Path, default=HERE / "study_results", help="of the searches")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    settings = parser.parse_args()
    if not settings.report:
        for seed in settings.seeds:
            for strategy in SCRIPTS:
                if not of(read(SEARCHES), strategy, seed):
                    run_search(strategy, seed, settings.results_dir / f"seed_{seed}")
        repeat_best()
    _, seeds = searched_by_both()
    if len(seeds) < 2:
        sys.exit("a report needs two seeds: run benchmarks/study.py without --report")
    trials = [trial for trial in read(TRIALS) if trial["seed"] in seeds]
    figures.save(HERE / "progress.png", progress_figure(trials))
    figures.save(HERE / "hyperparameters.png", hyperparameters_figure(trials))
    figures.save(HERE / "short_trials.png", short_trials_figure(trials))
    print(*report().values(), sep="\n\n")


if __name__ == "__main__":
    main()
