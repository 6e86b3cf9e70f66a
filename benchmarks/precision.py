"""Whether the precision chosen for this hardware costs accuracy: one network trained in both, with three seeds.

    python benchmarks/precision.py [--epochs 8]

Prints a Markdown table of validation accuracies, for one fixed set of hyperparameters.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import common  # first: it sets up TensorFlow before anything else imports it

import keras

HYPERPARAMETERS = {"units": 256, "dropout": 0.3, "learning_rate": 3e-3, "optimizer": "adam"}
SEEDS = (1, 2, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    epochs = parser.parse_args().epochs
    train, validation = common.load_train_data()
    hp = common.search_space()
    hp.values = dict(HYPERPARAMETERS)
    rows = [
        f"| precision | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean |",
        f"| --- |{' --- |' * (len(SEEDS) + 1)}",
    ]
    for precision in dict.fromkeys(("float32", common.fastest_precision())):
        cnn = common.CNN(common.argument_parser("").parse_args(["--precision", precision]))
        accuracies = []
        for seed in SEEDS:
            keras.utils.set_random_seed(seed)
            history = cnn.train(hp, cnn.build(hp), *train, epochs=epochs, validation_data=validation)
            accuracies.append(history.history["val_accuracy"][-1])
        cells = [f"{accuracy:.4f}" for accuracy in (*accuracies, statistics.mean(accuracies))]
        rows.append(f"| {precision} | {' | '.join(cells)} |")
    print(f"\n{HYPERPARAMETERS}, {epochs} epochs\n", *rows, sep="\n")


if __name__ == "__main__":
    main()
