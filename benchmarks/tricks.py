"""What each choice in common.py buys: a trial of fixed hyperparameters without it, or with another, with four seeds.

    python benchmarks/tricks.py [--store tricks.json] [--only "no plateau" ...]

As many trainings at a time as cores, each in a process with one thread, as in a search. Prints a Markdown table: the
best validation accuracy and its difference from that of common.py as it is, seed by seed, the epochs until early
stopping, and the mean seconds of an epoch. An hour or two; nothing else should run on the machine. What oneDNN buys:
the same command with TF_ENABLE_ONEDNN_OPTS=0 in front of it.
"""

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import statistics
from pathlib import Path
from unittest import mock

import trainings  # first: it sets up TensorFlow
import common

import joblib
import keras

from measuring import Rows, machine, spread, table

layers = keras.layers
Sequential, Adam = keras.Sequential, keras.optimizers.Adam
SEEDS = range(1, 5)


def network(edit):
    """The patch that has common.py's list of layers edited; `edit` returns the layers in place of one of them."""

    def build(original):
        edited = [new for layer in original for new in (edit(layer) if isinstance(layer, layers.Layer) else [layer])]
        assert [*map(id, edited)] != [*map(id, original)], "common.py has another network now"
        return Sequential(edited)

    return keras, "Sequential", build


def changed(layer, **config):
    """A list of the layer, if it is a convolution with some of its settings changed."""
    return [type(layer).from_config(layer.get_config() | config) if isinstance(layer, layers.Conv2D) else layer]


def with_filters(*filters):
    left = iter(filters)
    return network(lambda layer: changed(layer, filters=next(left) if isinstance(layer, layers.Conv2D) else None))


def normalize(layer):
    """BatchNormalization after each convolution's pool."""
    if isinstance(layer, layers.MaxPooling2D):
        return [layer, layers.BatchNormalization()]
    return [] if isinstance(layer, layers.BatchNormalization) else changed(layer, use_bias=False)


VARIANTS = {  # what to put in place of what
    "as it is": [],
    "no label smoothing": [(keras.losses, "CategoricalCrossentropy", lambda **_: "categorical_crossentropy")],
    **{f"filters {filters}": [with_filters(*filters)] for filters in ((16, 48, 96), (16, 32, 128), (16, 32, 64))},
    "no flips": [network(lambda layer: [] if isinstance(layer, layers.RandomFlip) else [layer])],
    "BatchNormalization in all blocks": [network(normalize)],
    "no plateau": [(keras.callbacks, "ReduceLROnPlateau", lambda *_, **__: keras.callbacks.Callback())],
    "no average": [
        (keras.optimizers, "Adam", lambda rate, **_: Adam(rate)),
        (keras.callbacks, "SwapEMAWeights", lambda **_: keras.callbacks.Callback()),
    ],
    "min_delta 0": [(common, "MIN_DELTA", 0)],
}


def train(name, seed):
    """Trains in this process; returns what the table shows."""
    with contextlib.ExitStack() as stack:
        for place in VARIANTS[name]:
            stack.enter_context(mock.patch.object(*place))
        accuracies, seconds = trainings.train(seed)
    return {"val_accuracy": max(accuracies), "epochs": len(seconds), "seconds": statistics.mean(seconds[1:])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, metavar="FILE", help="what was measured; the same command goes on")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS, help="these, beside it as it is")
    settings = parser.parse_args()
    names, cores = list(dict.fromkeys(["as it is", *settings.only])), joblib.cpu_count()
    rows, spawn = Rows(settings.store), multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(cores, spawn, max_tasks_per_child=1) as pool:
        # Seed by seed, so that all variants share what else the machine does.
        keys = [{"name": name, "seed": seed} for seed in SEEDS for name in names]
        trained = [rows.find(**key) or pool.submit(train, **key) for key in keys]
        found = [rows.get(lambda **_: row.result(), **key) for row, key in zip(trained, keys)]
    lines = []
    for name in names:
        mine, plain = ([row for row in found if row["name"] == each] for each in (name, "as it is"))
        gains = [one["val_accuracy"] - other["val_accuracy"] for one, other in zip(mine, plain)]
        forms = {"val_accuracy": ".4f", "epochs": ".1f", "seconds": ".2f"}
        cells = [spread([row[key] for row in mine], form) for key, form in forms.items()]
        lines.append([name, cells[0], spread(gains, "+.4f"), *cells[1:]])
    environment = trainings.environment
    print(f"{machine(environment.hardware(), environment.VERSIONS)}, {cores} trainings at a time\n")
    print(f"{trainings.HYPERPARAMETERS}, mean ± standard deviation of {len(SEEDS)} seeds\n")
    print(table(["", "best validation accuracy", "difference", "epochs", "seconds of an epoch"], lines))


if __name__ == "__main__":
    main()
