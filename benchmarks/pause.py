"""The pause between two epochs: a training fed with arrays, as Keras does by default, and one with common.dataset().

    python benchmarks/pause.py

Prints a Markdown table: the median and the largest of the epochs' seconds without the first one, in which TensorFlow
traces the training, then all of them. About 5 minutes; nothing else should run on the machine.
"""

import statistics

import trainings  # first: it sets up TensorFlow
import common

from measuring import machine, table


def main():
    (images, labels), validation = common.load_train_data()
    size = trainings.BATCH_SIZE
    arrays = {"x": images, "y": labels, "batch_size": size, "validation_data": validation}
    train = common.dataset(images, labels, size, shuffle=True)
    datasets = {"x": train, "validation_data": common.dataset(*validation, size), "shuffle": False}
    rows = []
    for name, data in {"arrays": arrays, "common.dataset": datasets}.items():
        _, _, model = trainings.build(seed=1)
        times = trainings.EpochTimes()
        model.fit(**data, epochs=25, callbacks=[times], verbose=0)
        seconds = times.seconds[1:]
        middle, largest = statistics.median(seconds), max(seconds)
        cells = [f"{each:.2f}" for each in (middle, largest, largest / middle)]
        rows.append([name, *cells, f"{sum(seconds):.0f}", " ".join(f"{each:.1f}" for each in seconds)])
    print(f"{machine(trainings.environment.hardware(), trainings.environment.VERSIONS)}\n")
    print(table(["seconds of an epoch", "median", "largest", "largest / median", "sum", "one by one"], rows))


if __name__ == "__main__":
    main()
