"""Bayesian optimisation of the hyperparameters of a CNN on Fashion-MNIST.

    python bayesian_tuning.py                                             the full search: 10 trials
    python bayesian_tuning.py --max-trials 6 --train-images 4000          a quick look
"""

import warnings

import common  # first: it sets up TensorFlow before anything else imports it

import keras_tuner as kt
import numpy as np
import sklearn.exceptions

import results
import search
import storage


class BayesianOptimization(search.ResumableOracle, kt.oracles.BayesianOptimizationOracle):
    """Tries what a Gaussian process deems best; kt.BayesianOptimization is a kt.Tuner with its oracle."""

    def populate_space(self, trial_id):
        # KerasTuner doesn't store this sampler's state: seeded for each trial, a resumed search proposes the same.
        self._random_state = np.random.RandomState(search.trial_seed(self.seed, trial_id))
        with warnings.catch_warnings():
            # Of a kernel scale at its bound: with so few trials it often is, and nobody can act on it.
            warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
            if self.ongoing_trials:
                self.fit_to_ended_trials()
            return super().populate_space(trial_id)

    def fit_to_ended_trials(self):
        """Readies the process for what KerasTuner asks it first: to guess the results of trials at work elsewhere."""
        with self.knowing({id: trial for id, trial in self.trials.items() if search.has_ended(trial)}):
            x, y = self._vectorize_trials()
        if len(y):
            self.gpr.fit(x, y)


@common.command
def main():
    parser = common.argument_parser(__doc__)
    parser.add_argument("--initial-points", type=common.whole_number(1), default=4, metavar="N",
                        help="random trials before the Gaussian process proposes (4)")
    settings = parser.parse_args()
    storage.open_project(settings, "fashion_mnist_cnn_bayesian_optimization")
    if settings.max_trials <= settings.initial_points:
        print(f"All trials are random: the Gaussian process proposes from trial {settings.initial_points + 1} on")
    train, validation = common.load_train_data(settings.train_images)
    test = common.load_test_data()  # already here: a damaged file is told before anything is trained

    oracle = BayesianOptimization(
        objective="val_accuracy",
        max_trials=settings.max_trials,
        # KerasTuner's default, 3 for each hyperparameter, is 12: of 10 trials, not one would be Bayesian.
        num_initial_points=settings.initial_points,
        seed=settings.seed,
        hyperparameters=common.search_space(),
    )
    tuner = search.Tuner(oracle, common.CNN(settings), settings)
    tuner.search(*train, validation_data=validation)

    results.report(tuner, *test)


if __name__ == "__main__":
    main()
