"""What each trick of the network and of its training buys: the best model's training without it.

    python benchmarks/tricks.py

Prints a Markdown table for one fixed set of hyperparameters: accuracies on the validation images, mean and standard
deviation over three seeds, and the seconds of the whole training. Nothing else should run on the machine.
"""

import contextlib
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import common  # first: it sets up TensorFlow before anything else imports it

import keras

HYPERPARAMETERS = {"units": 256, "dropout": 0.3, "learning_rate": 3e-3, "optimizer": "adam"}
FASTER = HYPERPARAMETERS | {"learning_rate": 1e-2}
SEEDS = (1, 2, 3)

schedules = keras.optimizers.schedules
Conv2D, CosineDecay = keras.layers.Conv2D, schedules.CosineDecay


def nothing(*args, **kwargs):
    return keras.layers.Identity()


def with_bias(*args, use_bias, **kwargs):
    return Conv2D(*args, **kwargs)


def more_filters(filters, *args, **kwargs):
    return Conv2D({32: 48}.get(filters, filters), *args, **kwargs)


def without_warm_up(_, steps, alpha, warmup_target, warmup_steps):
    return CosineDecay(warmup_target, steps + warmup_steps, alpha)


ONE = (common, "FINAL_NETWORKS", 1)
FAST_TRIAL = [ONE, (common, "FINAL_EPOCHS", common.TRIAL_EPOCHS), (sys.modules[__name__], "HYPERPARAMETERS", FASTER)]
VARIANTS = {  # what to put in place of what
    "one network": [ONE],
    "without flips": [ONE, (keras.layers, "RandomFlip", nothing)],
    "without normalisation": [
        ONE, (keras.layers, "BatchNormalization", nothing), (keras.layers, "Conv2D", with_bias)
    ],
    "without warming up": [ONE, (schedules, "CosineDecay", without_warm_up)],
    "8 epochs instead of 12": [ONE, (common, "FINAL_EPOCHS", 8)],
    "16, 48, 96 filters": [ONE, (keras.layers, "Conv2D", more_filters)],
    "four networks": [],
    "4 epochs with a learning rate of 0.01": FAST_TRIAL,
    "the same without warming up": [*FAST_TRIAL, (schedules, "CosineDecay", without_warm_up)],
}


def measure(variant, seed, train, validation):
    """Trains one variant.

    Returns:
        The validation accuracy of one network (the mean of them), that of the best model made of them, and the seconds
        that their training took.
    """
    cnn = common.CNN(common.argument_parser("").parse_args(["--precision", common.fastest_precision()]))
    with contextlib.ExitStack() as stack:
        for place in variant:
            stack.enter_context(mock.patch.object(*place))
        hp = common.search_space()
        hp.values = dict(HYPERPARAMETERS)
        keras.utils.set_random_seed(seed)
        started = time.monotonic()
        ensemble, curves = cnn.train_final(hp, *train, validation_data=validation)
        seconds = time.monotonic() - started
    _, accuracy = common.average(ensemble, "variant").evaluate(*validation, batch_size=1000, verbose=0)
    return curves["val_accuracy"][-1], accuracy, seconds


def main():
    train, validation = common.load_train_data()
    rows = []
    for name, variant in VARIANTS.items():
        ones, bests, seconds = zip(*(measure(variant, seed, train, validation) for seed in SEEDS))
        cells = [f"{statistics.mean(each):.4f} ± {statistics.stdev(each):.4f}" for each in (ones, bests)]
        rows.append(f"| {name} | {' | '.join(cells)} | {statistics.mean(seconds):.0f} |")
    print(f"\n{HYPERPARAMETERS}, {common.FINAL_EPOCHS} epochs, {len(SEEDS)} seeds\n")
    print(
        "| | one network, one image | all networks, with the mirror image | seconds |\n| --- | --- | --- | --- |",
        *rows,
        sep="\n",
    )


if __name__ == "__main__":
    main()
