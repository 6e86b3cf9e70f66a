"""Random search for the best hyperparameters of a CNN on Fashion-MNIST.

The full search has 10 trials. For a quick look: --max-trials 6 --train-images 4000 --results-dir quick
"""

from tuning.command_line import Parser, errors_in_one_line

parser = Parser(__doc__)
parser.add_number("--train-images", 48_000, "use only the first N", low=4, high=48_000)
args = parser.parse_args()  # before TensorFlow is imported, which takes seconds

with errors_in_one_line():
    from tuning.report import report  # before common: it sets up TensorFlow
    from tuning.tuner import RandomSearch
    import common

    train, validation = common.load_train_data(args.train_images)
    test = common.load_test_data()  # now, so that missing data end the script before the search

    tuner = RandomSearch(common.CNN(), "val_accuracy", "fashion_mnist_cnn_random_search", args)
    fit = {"epochs": args.epochs, "batch_size": args.batch_size, "callbacks": [common.early_stopping(args.patience)]}
    tuner.search(*train, validation_data=validation, **fit)
    report(tuner, *test, image_classes=common.CLASS_NAMES)
