"""Whether the Gaussian process of tuning/proposals.py beats chance, and KerasTuner's: simulated searches.

    python benchmarks/simulated.py [--half reporting] [--searches 400]

Prints Markdown tables; 10 minutes on one core. A trial takes no time: its accuracy is read from a landscape, plus noise
as measured by training again. The landscapes are fitted to frozen_trials.csv, a copy that never changes of the trials
in benchmarks/trials.csv of commit 393a5b0. With `--half choosing`, fitted to the trials of seeds 1 and 2, the constants
in proposals.py were chosen; the reporting half has seeds 3 to 5, and another problem altogether. The trials of today's
network: --trials trials.csv --half all
"""

import argparse
import csv
import sys
from pathlib import Path

import keras_tuner as kt
import numpy as np
from scipy.optimize import minimize
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tuning import proposals

NOISE = 0.0013  # standard deviation of the accuracy when one set is trained with five seeds: frozen_repeated.csv
TRIALS, INITIAL_POINTS = 10, 4  # of a search, and those of them that are drawn at random: the scripts' defaults
SETS = 3000  # of hyperparameters, of which a landscape consists
CANDIDATES = 500  # sets of which a proposal is chosen, other ones for each trial
HALVES = {"choosing": {1, 2}, "reporting": {3, 4, 5}, "all": {1, 2, 3, 4, 5}}  # seeds
FIGURES = "the model that is chosen", "best four", "trials 5 to 10"


def random_sets(space):
    """SETS random points of a kt.HyperParameters: a list of dictionaries."""
    rows = np.random.default_rng(0).random((SETS, len(space.space)))
    return [{hp.name: hp.prob_to_value(share) for hp, share in zip(space.space, row)} for row in rows]


def numbers(space, sets):
    """Sets as KerasTuner sees them: rows with one number from 0 to 1 for each hyperparameter."""
    return np.array([[hp.value_to_prob(values[hp.name]) for hp in space.space] for values in sets])


def read_trials(file, seeds):
    """The space of common.py, random sets of it, a file's trials of some seeds: their numbers, accuracies."""
    space = kt.HyperParameters()
    space.Int("units", 64, 512, step=32)
    space.Float("dropout", 0.1, 0.5, step=0.1)
    space.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    space.Choice("optimizer", ["adam", "rmsprop"])
    trials = {}
    for row in csv.DictReader(Path(__file__).with_name(file).read_text().splitlines()):
        if int(row["seed"]) in seeds:
            dropout = float(row["dropout"]) + 1e-9  # KerasTuner rounds steps down, and its own 0.3 is above 0.3
            values = int(row["units"]), dropout, float(row["learning_rate"]), row["optimizer"]
            trials[values] = float(row["val_accuracy"])
    tried = [{hp.name: value for hp, value in zip(space.space, values)} for values in trials]
    return space, random_sets(space), numbers(space, tried), np.array(list(trials.values()))


def smooth(file, seeds, searches):
    """For each search a landscape of its own, which a Gaussian process that knows the trials of `seeds` holds possible.

    Returns: the space, the sets that a landscape consists of, their true accuracies in a row for each search.
    """
    space, sets, tried, accuracies = read_trials(file, seeds)
    kernel = kernels.ConstantKernel() * kernels.Matern([1] * 4, (0.05, 20), nu=2.5)
    noise = (NOISE / accuracies.std()) ** 2
    process = GaussianProcessRegressor(kernel, alpha=noise, normalize_y=True, n_restarts_optimizer=5, random_state=0)
    return space, sets, process.fit(tried, accuracies).sample_y(numbers(space, sets), searches, random_state=0).T


def trees(file, seeds, searches):
    """What randomised trees make of the trials of `seeds`: steps. Returns the like of smooth()."""
    space, sets, tried, accuracies = read_trials(file, seeds)
    forest = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0).fit(tried, accuracies)
    return space, sets, np.tile(forest.predict(numbers(space, sets)), (searches, 1))


def hartmann(searches):
    """Hartmann's function in four dimensions (Picheny et al. 2013), with a mean and a deviation as ours."""
    scale = [[10, 3, 17, 3.5], [0.05, 10, 17, 0.1], [3, 3.5, 1.7, 10], [17, 8, 0.05, 10]]
    centre = [[1312, 1696, 5569, 124], [2329, 4135, 8307, 3736], [2348, 1451, 3522, 2883], [4047, 8828, 8732, 5743]]
    space = kt.HyperParameters()
    for name in "abcd":
        space.Float(name, 0, 1)
    sets = random_sets(space)
    values = np.exp(-(scale * (numbers(space, sets)[:, None] - np.divide(centre, 1e4)) ** 2).sum(2)) @ [1, 1.2, 3, 3.2]
    return space, sets, np.tile(0.926 + 0.005 * (values - values.mean()) / values.std(), (searches, 1))


def keras_tuners_process(space, candidates, results, pending):
    """Like proposals.choose(), with the kernel, noise and acquisition of KerasTuner 1.4.8, bayesian.py."""

    def most_likely(loss, start, bounds):  # a third of the time of KerasTuner's 21 starts, for the same length
        logs = np.linspace(np.log(0.02), np.log(200), 30)[:, None]
        start = min(logs, key=lambda each: loss(each, eval_gradient=False))
        found = minimize(loss, start, jac=True, bounds=[(logs[0, 0], logs[-1, 0])])
        return found.x, found.fun

    tried, scores = zip(*results)
    process = GaussianProcessRegressor(kernels.Matern(nu=2.5), alpha=1e-4, normalize_y=True, optimizer=most_likely)
    process.fit(numbers(space, tried), np.array(scores))
    if pending:
        scores = np.append(scores, process.predict(numbers(space, pending)))
        process.set_params(kernel=process.kernel_, optimizer=None).fit(numbers(space, [*tried, *pending]), scores)
    mean, deviation = process.predict(numbers(space, candidates), return_std=True)
    return candidates[np.argmin(mean - 2.6 * deviation)]


def search(landscape, propose, at_a_time, number):
    """One search: trial n is proposed from the results of trials 1 to n - at_a_time; at random if `propose` is None.

    Searches of one number are paired: same noise and, trial by trial, same draws. Returns the true FIGURES.
    """
    space, sets, truths = landscape
    noise = np.random.default_rng([number, 0]).normal(0, NOISE, TRIALS)
    tried = []  # indices of sets, as the others below
    for trial in range(1, TRIALS + 1):
        draws = np.random.default_rng([number, trial]).permutation(SETS)
        untried = [index for index in draws[:CANDIDATES] if index not in tried]
        if propose is None or trial <= INITIAL_POINTS:
            tried.append(untried[0])
            continue
        known = tried[: trial - at_a_time]
        results = [(sets[index], -truths[number, index] - noise[n]) for n, index in enumerate(known)]
        candidates, pending = ([sets[index] for index in each] for each in (untried, tried[len(known) :]))
        proposed = propose(space, candidates, results, pending)
        tried.append(untried[next(n for n, each in enumerate(candidates) if each is proposed)])
    truth, best = truths[number, tried], np.argsort(-truths[number, tried] - noise)
    return truth[best[0]], truth[best[:4]].mean(), truth[INITIAL_POINTS:].mean()


def difference(ones, others):
    """The mean difference of paired searches with its 95% interval, for a table's cells."""
    means, errors = (ones - others).mean(axis=0), (ones - others).std(axis=0, ddof=1) / len(ones) ** 0.5
    return [f"{mean:+.5f} ± {1.96 * error:.5f}" for mean, error in zip(means, errors)]


def table(landscape, searches):
    """A Markdown table: what random search reaches, and the differences of the others."""

    def run(propose, at_a_time=1):
        return np.array([search(landscape, propose, at_a_time, number) for number in range(searches)])

    chance, ours = run(None), {}
    rows = [["", *FIGURES], ["---"] * 4, ["random search", *(f"{mean:.4f}" for mean in chance.mean(axis=0))]]
    for at_a_time in (1, 2):
        theirs, ours[at_a_time] = run(keras_tuners_process, at_a_time), run(proposals.choose, at_a_time)
        rows.append([f"{at_a_time} at a time: KerasTuner's process − random", *difference(theirs, chance)])
        rows.append([f"{at_a_time} at a time: ours − random", *difference(ours[at_a_time], chance)])
        rows.append([f"{at_a_time} at a time: ours − KerasTuner's process", *difference(ours[at_a_time], theirs)])
    rows.append(["ours: 2 at a time − 1 at a time", *difference(ours[2], ours[1])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="frozen_trials.csv", help="a file in this folder")
    parser.add_argument("--half", choices=HALVES, default="reporting")
    parser.add_argument("--searches", type=int, default=400)
    settings = parser.parse_args()
    source = settings.trials, HALVES[settings.half], settings.searches
    landscapes = {"smooth": smooth(*source), "trees": trees(*source)}
    if settings.half == "reporting":
        landscapes["Hartmann's function"] = hartmann(settings.searches)
    for name, landscape in landscapes.items():
        print(f"## {name}, {settings.half}\n\n{table(landscape, settings.searches)}\n", flush=True)


if __name__ == "__main__":
    main()
