"""Random search for the best hyperparameters of a CNN on Fashion-MNIST.

The full search has 10 trials. For a quick look: --max-trials 6 --train-images 4000 --results-dir quick
"""

import tuning  # before common: it sets up TensorFlow

import common


def main(options, project):
    train, validation = common.load_train_data(options.train_images)
    test = common.load_test_data()  # now, so that missing data end the script before the search

    tuner = tuning.RandomSearch(
        common.CNN(), objective="val_accuracy", max_trials=options.max_trials, seed=options.seed, project=project
    )
    tuner.search(
        *train,
        validation_data=validation,
        epochs=options.epochs,
        batch_size=options.batch_size,
        callbacks=[common.early_stopping(options.patience)],
    )
    tuning.evaluate(tuner, *test, common.CLASS_NAMES)


if __name__ == "__main__":
    parser = tuning.ArgumentParser(__doc__)
    parser.add_number("--train-images", common.TRAIN_IMAGES, "use only the first N", low=4, high=common.TRAIN_IMAGES)
    tuning.run(main, parser, "fashion_mnist_cnn_random_search")
