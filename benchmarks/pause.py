"""The pause between two epochs: a training fed with arrays, as Keras does by default, and one with common.dataset().

    python benchmarks/pause.py [--epochs 25]

Prints a Markdown table: the median and the largest of the epochs' seconds without the first one, in which TensorFlow
traces the training, then all of them. About 5 minutes; nothing else should run on the machine.
"""

import argparse
import contextlib
import statistics
import sys

import trainings  # first: it sets up TensorFlow
import common


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    epochs = parser.parse_args().epochs
    (images, labels), validation = trainings.load_data()
    size = trainings.BATCH_SIZE
    trainings.keras.utils.set_random_seed(1)  # the dataset's order depends on it
    feeds = {
        "arrays": {"x": images, "y": labels, "batch_size": size, "validation_data": validation},
        "common.dataset": {
            "x": common.dataset(images, labels, size, shuffle=True),
            "validation_data": common.dataset(*validation, size),
        },
    }
    rows, all_epochs = [], []
    for name, data in feeds.items():
        _, _, model = trainings.build(seed=1)
        with contextlib.redirect_stdout(sys.stderr):
            model.fit(**data, epochs=epochs, callbacks=[trainings.EpochTimes()], verbose=2)
        seconds = trainings.EpochTimes.trainings[-1][1:]
        middle, largest = statistics.median(seconds), max(seconds)
        rows.append([name, f"{middle:.2f}", f"{largest:.2f}", f"{largest / middle:.2f}", f"{sum(seconds):.0f}"])
        all_epochs.append(f"{name}: {', '.join(f'{each:.1f}' for each in seconds)}")
    print(f"{trainings.this_machine()}\n")
    header = ["seconds of an epoch", "median", "largest", "largest / median", f"sum of {epochs - 1}"]
    print(trainings.table(header, rows), *all_epochs, sep="\n\n")


if __name__ == "__main__":
    main()
