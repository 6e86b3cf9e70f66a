"""Whether the precision chosen for this hardware costs accuracy: trials in it and in float32, with three seeds.

    python benchmarks/precision.py [--store precision.json]

Prints a Markdown table for one fixed set of hyperparameters: the best validation accuracy, the epochs until early
stopping, and the median seconds of an epoch. About 10 minutes; nothing else should run on the machine.
"""

import trainings  # first: it sets up TensorFlow


def main():
    names = dict.fromkeys(["float32", trainings.tuning.environment.fastest_precision()])
    trainings.compare(__doc__, names, lambda name, seed: trainings.train(seed, precision=name))


if __name__ == "__main__":
    main()
