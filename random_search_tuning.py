"""Random search for the best hyperparameters of a CNN on Fashion-MNIST.

    python random_search_tuning.py                                        the full search: 10 trials
    python random_search_tuning.py --max-trials 3 --train-images 4000     a quick look
"""

import tuning  # before common: it sets up TensorFlow

import common


def main(options, project):
    train, validation = common.load_train_data(options.train_images)
    test = common.load_test_data()

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
    parser.add_number("--train-images", common.TRAIN_IMAGES, "use only the first N", 4, common.TRAIN_IMAGES)
    tuning.run(main, parser, "fashion_mnist_cnn_random_search")
