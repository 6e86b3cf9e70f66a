"""What a trial tries: functions of the search space, the seed, the trial's number and the trials before it.

No files, no locks, no search: whoever runs a trial, and however often, finds the same hyperparameters.
"""

import hashlib
import itertools

from tuning import gaussian_process

ATTEMPTS = 1000  # draws for one trial, before the space counts as exhausted
CANDIDATES = 500  # of which the Gaussian process chooses


def stable_seed(*parts):
    """A seed of 32 bits that follows from the parts alone, in any process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def draw(space, seed, number, attempt):
    """Draws hyperparameters at random from a kt.HyperParameters.

    A value follows from (seed, number of the trial, attempt, name) alone: neither the order of the space nor what else
    is in it matters. KerasTuner counts seeds on from trial to trial, so that its seeds 1 and 5 share most trials.

    Returns:
        A dictionary by names, of those hyperparameters that are active.
    """
    space = space.copy()
    space.values = {}
    for hp in space.space:  # a condition's hyperparameter comes before those that depend on it
        if space.is_active(hp):
            space.values[hp.name] = hp.random_sample(stable_seed(seed, number, attempt, hp.name))
    return space.values


def untried(space, seed, number, tried):
    """Yields different draws, none of them in `tried`."""
    seen = list(tried)
    for attempt in range(ATTEMPTS):
        values = draw(space, seed, number, attempt)
        if values not in seen:
            seen.append(values)
            yield values


def propose_random(space, seed, number, tried, results):
    """The first draw that was not tried.

    Args:
        space: the kt.HyperParameters that are known so far.
        seed: of the search.
        number: of the trial, from 1.
        tried: the hyperparameters of the trials before it, a list of dictionaries.
        results: pairs (hyperparameters, score) of those of them that count, a score is better the lower it is.

    Returns:
        A dictionary by names; None where everything was tried.
    """
    return next(untried(space, seed, number, tried), None)


def propose_bayesian(space, seed, number, tried, results, initial_points, **process):
    """What a Gaussian process expects most of, once `initial_points` trials were drawn at random.

    The other arguments and the result are those of propose_random(); `process` may have `alpha` and `beta`, which
    mean what they mean in KerasTuner.
    """
    candidates = list(itertools.islice(untried(space, seed, number, tried), CANDIDATES))
    if number <= initial_points or len(results) < 2 or not candidates:
        return candidates[0] if candidates else None
    known = [values for values, _ in results]
    pending = [values for values in tried if values not in known]
    return gaussian_process.propose(space, candidates, results, pending, seed=stable_seed(seed, number), **process)
