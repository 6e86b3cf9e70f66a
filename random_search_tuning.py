"""Random search for the best hyperparameters of a CNN on Fashion-MNIST.

    python random_search_tuning.py                                        the full search: 10 trials
    python random_search_tuning.py --max-trials 3 --train-images 4000     a quick look
"""

import common  # first: it sets up TensorFlow before anything else imports it

import keras_tuner as kt

import results
import search
import storage


class RandomSearch(search.ResumableOracle, kt.oracles.RandomSearchOracle):
    """Draws each trial's hyperparameters at random; kt.RandomSearch is a kt.Tuner with this oracle."""


@common.command
def main():
    settings = common.argument_parser(__doc__).parse_args()
    storage.open_project(settings, "fashion_mnist_cnn_random_search")
    train, validation = common.load_train_data(settings.train_images)
    test = common.load_test_data()  # already here: a damaged file is told before anything is trained

    oracle = RandomSearch(
        objective="val_accuracy",
        max_trials=settings.max_trials,
        seed=settings.seed,
        hyperparameters=common.search_space(),
    )
    tuner = search.Tuner(oracle, common.CNN(settings), settings)
    tuner.search(*train, validation_data=validation)

    results.report(tuner, *test)


if __name__ == "__main__":
    main()
