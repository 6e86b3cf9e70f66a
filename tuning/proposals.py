"""What a trial tries: functions of the search space, the seed, the trial's number and the trials before it.

No files, no locks, no search: whoever runs a trial, and however often, finds the same hyperparameters.
"""

import hashlib
import itertools

from tuning import gaussian_process

ATTEMPTS = 1000  # draws for one trial, before the space counts as exhausted
CANDIDATES = 500  # of which the Gaussian process chooses: 100 lose, 3000 gain nothing (benchmarks/simulated.md)


def stable_seed(*parts):
    """A seed of 32 bits that follows from the parts alone, in any process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def untried(space, seed, number, tried):
    """Yields different random draws of the active hyperparameters, dictionaries by names, none of them in `tried`.

    A value follows from (seed, number of the trial, attempt, name) alone: neither the order of the space nor what else
    is in it matters. KerasTuner counts seeds on from trial to trial, so that its seeds 1 and 5 share most trials.
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


def propose_random(space, seed, number, tried, results):
    """The first draw that was not tried.

    Args:
        space: the kt.HyperParameters that are known so far.
        seed: of the search.
        number: of the trial, from 1.
        tried: the hyperparameters of the trials before it, a list of dictionaries.
        results: pairs (hyperparameters, score) of those of them that count; a score is better the lower it is.

    Returns:
        A dictionary by names; None where everything was tried.
    """
    return next(untried(space, seed, number, tried), None)


def propose_bayesian(space, seed, number, tried, results, initial_points):
    """What a Gaussian process expects most of, once `initial_points` trials were drawn; else as propose_random()."""
    if number <= initial_points or len(results) < 2:
        return propose_random(space, seed, number, tried, results)
    candidates = list(itertools.islice(untried(space, seed, number, tried), CANDIDATES))
    pending = [values for values in tried if values not in [known for known, _ in results]]
    return gaussian_process.propose(space, candidates, results, pending) if candidates else None
