"""What a Gaussian process makes of the trials so far: functions of their arguments, without files, locks or a search.

The reasons for the constants are measured in benchmarks/simulated.md.
"""

from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from tuning.environment import kt, np

BETA = 1.0  # with 2.6 trials 5 to 10 gain a third as much over random ones, with 0.5 the chosen model gains less
ALPHA = 0.1  # training again gives 0.07 of the variance of accuracies; 0.05 and 0.2 do as well


def propose(space, candidates, results, pending, beta=BETA, alpha=ALPHA):
    """The candidate of which a Gaussian process expects most.

    Args:
        space: the kt.HyperParameters known so far.
        candidates: list of dictionaries of values by name, active hyperparameters only; not empty.
        results: list of at least two pairs (values, score), the lower the better.
        pending: list of values whose results are unknown: their expected score stands in.
        beta: how much a candidate's uncertainty counts in its favour, in standard deviations.
        alpha: the variance of the scores' noise, relative to the variance of the scores.
    """
    owners, x = vectorize(space, [values for values, _ in results] + pending + candidates)
    tried, waiting, untried = np.split(x, [len(results), len(results) + len(pending)])
    scores = np.array([score for _, score in results])

    def most_likely(loss, start, bounds):
        """Finds the logarithms of the lengths, one for each hyperparameter: scikit-learn itself has no prior."""

        def loss_with_prior(logs):  # logs are standard normal; were they flat, the chosen model would gain less
            value, gradient = loss(logs[owners])
            return value + logs @ logs / 2, np.bincount(owners, gradient) + logs

        found = minimize(loss_with_prior, np.zeros(owners[-1] + 1), jac=True, bounds=[(-3, 3)] * (owners[-1] + 1))
        return found.x[owners], found.fun

    kernel = Matern(np.ones(len(owners)), nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=alpha, normalize_y=True, optimizer=most_likely)
    process.fit(tried, scores)
    if pending:
        scores = np.append(scores, process.predict(waiting))
        process.set_params(kernel=process.kernel_, optimizer=None).fit(np.vstack([tried, waiting]), scores)
    mean, deviation = process.predict(untried, return_std=True)
    return candidates[np.argmin(mean - beta * deviation)]


def vectorize(space, points):
    """Points of the space as rows of numbers from 0 to 1, and each column's hyperparameter as an index.

    A choice without an order has a column for each value, so that any two values are equally far from each other.
    """
    owners, columns = [], []
    for index, hp in enumerate(hp for hp in space.space if not isinstance(hp, kt.engine.hyperparameters.Fixed)):
        values = [value_of(hp, point) for point in points]
        if isinstance(hp, kt.engine.hyperparameters.Choice) and not hp.ordered:
            new = [[0.5**0.5 * (value == each) for value in values] for each in hp.values]
        else:
            # KerasTuner rounds down to a step, and often to the one before: 0.3 // 0.1 is 2. Half a step more is safe.
            half = hp.step / 2 if getattr(hp, "step", None) and hp.sampling == "linear" else 0
            new = [[hp.value_to_prob(value + half) for value in values]]
        columns += new
        owners += [index] * len(new)
    return np.array(owners), np.array(columns).T


def value_of(hp, point):
    """A hyperparameter's value at a point; its default where the point lacks it, as in KerasTuner's own oracle."""
    active = hp.name in point and all(condition.is_active(point) for condition in hp.conditions)
    return point[hp.name] if active else hp.default
