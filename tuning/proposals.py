"""What a trial tries: functions of the search space, the seed, the trial's number and the trials before it alone."""

import hashlib
import itertools

from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from tuning.environment import kt, np

ATTEMPTS = 1000  # draws for one trial, before the space counts as exhausted
# The reasons for the following constants are measured in benchmarks/simulated.md.
CANDIDATES = 500  # of which the Gaussian process chooses: 100 lose, 3000 gain nothing
BETA = 1.0  # deviations in a candidate's favour: with 2.6 trials 5 to 10 gain a third, with 0.5 the chosen model less
ALPHA = 0.1  # the scores' noise, of their variance: training again gives 0.07; 0.05 and 0.2 do as well


def stable_seed(*parts):
    """A seed of 32 bits that follows from the parts alone, in any process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def untried(space, seed, number, tried):
    """Yields different random draws of the active hyperparameters, none of them in `tried`; arguments as below.

    A value follows from (seed, number, attempt, name): neither the order of the space nor what else is in it matters.
    """
    seen, space = list(tried), space.copy()
    for attempt in range(ATTEMPTS):
        space.values = {}
        for hp in space.space:  # a condition's hyperparameter comes before those that depend on it
            if space.is_active(hp):
                space.values[hp.name] = hp.random_sample(stable_seed(seed, number, attempt, hp.name))
        if space.values not in seen:
            seen.append(space.values)
            yield space.values


def propose(space, seed, number, tried, results, initial_points=None):
    """What a trial tries: hyperparameters, a dictionary by names, and "random" or "surrogate", who has chosen them.

    The first draw that was not tried, or, after `initial_points` trials, of many such draws the one of which a Gaussian
    process expects most. None instead of hyperparameters where everything was tried.

    Args:
        space, seed, number: the kt.HyperParameters known so far, the seed of the search, the trial's number, from 1.
        tried: the hyperparameters of the trials before it, a list of dictionaries.
        results: pairs (hyperparameters, score) of those of them that count; a score is better the lower it is.
    """
    draws = untried(space, seed, number, tried)
    if initial_points is None or number <= initial_points or len(results) < 2:
        return next(draws, None), "random"
    candidates = list(itertools.islice(draws, CANDIDATES))
    pending = [values for values in tried if values not in [known for known, _ in results]]
    return choose(space, candidates, results, pending) if candidates else None, "surrogate"


def choose(space, candidates, results, pending):
    """The candidate of which a Gaussian process expects most, from at least two results.

    `pending` are hyperparameters whose results are unknown: their expected score stands in.
    """
    owners, x = vectorize(space, [values for values, _ in results] + pending + candidates)
    tried, waiting, choices = np.split(x, [len(results), len(results) + len(pending)])
    scores = np.array([score for _, score in results])

    def most_likely(loss, start, bounds):
        """Finds the logarithms of the lengths, one for each hyperparameter: scikit-learn itself has no prior."""

        def loss_with_prior(logs):  # logs are standard normal; were they flat, the chosen model would gain less
            value, gradient = loss(logs[owners])
            return value + logs @ logs / 2, np.bincount(owners, gradient) + logs

        found = minimize(loss_with_prior, np.zeros(owners[-1] + 1), jac=True, bounds=[(-3, 3)] * (owners[-1] + 1))
        return found.x[owners], found.fun

    kernel = Matern(np.ones(len(owners)), nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=ALPHA, normalize_y=True, optimizer=most_likely)
    process.fit(tried, scores)
    if pending:
        scores = np.append(scores, process.predict(waiting))
        process.set_params(kernel=process.kernel_, optimizer=None).fit(np.vstack([tried, waiting]), scores)
    mean, deviation = process.predict(choices, return_std=True)
    return candidates[np.argmin(mean - BETA * deviation)]


def vectorize(space, points):
    """Points of the space as rows of numbers from 0 to 1, and each column's hyperparameter as an index.

    A choice without an order has a column for each value, all equally far apart. What a point lacks has its default.
    """
    owners, columns = [], []
    for index, hp in enumerate(hp for hp in space.space if not isinstance(hp, kt.engine.hyperparameters.Fixed)):
        active = [all(condition.is_active(point) for condition in hp.conditions) for point in points]
        values = [point.get(hp.name, hp.default) if known else hp.default for point, known in zip(points, active)]
        if isinstance(hp, kt.engine.hyperparameters.Choice) and not hp.ordered:
            new = [[0.5**0.5 * (value == each) for value in values] for each in hp.values]
        else:
            # KerasTuner rounds down to a step, and often to the one before: 0.3 // 0.1 is 2. Half a step more is safe.
            half = hp.step / 2 if getattr(hp, "step", None) and hp.sampling == "linear" else 0
            new = [[hp.value_to_prob(value + half) for value in values]]
        columns += new
        owners += [index] * len(new)
    return np.array(owners), np.array(columns).T
