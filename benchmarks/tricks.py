"""What each trick of common.py buys: a trial of one fixed set of hyperparameters without it, with four seeds.

    python benchmarks/tricks.py [--store tricks.json]

Prints a Markdown table: the best validation accuracy, the epochs until early stopping, and the median seconds of an
epoch; of tricks that are about time alone, only the latter, of short trainings. About an hour; nothing else should
run on the machine.
"""

import contextlib
from unittest import mock

import trainings  # first: it sets up TensorFlow
import common

import keras
import tensorflow as tf

layers = keras.layers
Sequential, Adam, dataset = keras.Sequential, keras.optimizers.Adam, common.dataset
TIMING_EPOCHS = 4
SEEDS = range(1, 5)


# --- Other networks: functions from common.py's list of layers to another one -----------------------------------------


def without(kind):
    return lambda network: [layer for layer in network if not isinstance(layer, kind)]


def changed(layer, **config):
    return type(layer).from_config(layer.get_config() | config)


def with_padding(network):
    return [changed(layer, padding="same") if isinstance(layer, layers.Conv2D) else layer for layer in network]


def with_filters(*filters):
    def edit(network):
        left = list(filters)
        return [
            changed(layer, filters=left.pop(0)) if isinstance(layer, layers.Conv2D) else layer for layer in network
        ]

    return edit


def without_normalization(network):
    return [
        changed(layer, use_bias=True) if isinstance(layer, layers.Conv2D) else layer
        for layer in without(layers.BatchNormalization)(network)
    ]


def with_normalization_everywhere(network):
    edited = []
    for layer in network:
        if isinstance(layer, layers.ReLU) and not isinstance(edited[-1], layers.BatchNormalization):
            edited.append(layers.BatchNormalization())
        edited.append(changed(layer, use_bias=False) if isinstance(layer, layers.Conv2D) else layer)
    return edited


def pooled_last(network):
    edited, pool = [], None
    for layer in network:
        if isinstance(layer, layers.MaxPooling2D):
            pool = layer
            continue
        edited.append(layer)
        if isinstance(layer, layers.ReLU):
            edited.append(pool)
    return edited


def network(edit):
    """The patch that has the network edited."""

    def build(original):
        edited = edit(original)
        before, after = ([layer.get_config() for layer in each[1:]] for each in (original, edited))  # first: the input
        assert before != after, "common.py has another network now"
        return Sequential(edited)

    return keras, "Sequential", build


# --- Other ways to train ----------------------------------------------------------------------------------------------


def nothing(*args, **kwargs):
    return keras.callbacks.Callback()


def without_average(*args, use_ema, ema_momentum, **kwargs):
    return Adam(*args, **kwargs)


def from_slices(images, labels, batch_size, shuffle=False):
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    if shuffle:
        data = data.shuffle(len(images))
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.batch(batch_size).prefetch(1).with_options(options)


class OneStepAtATime(Sequential):
    def compile(self, *args, steps_per_execution, **kwargs):
        super().compile(*args, **kwargs)


VARIANTS = {  # what to put in place of what
    "as it is": [],
    "without RandomFlip": [network(without(layers.RandomFlip))],
    "without RandomErasing": [network(without(layers.RandomErasing))],
    "second convolution with padding": [network(with_padding)],
    "16, 48, 96 filters": [network(with_filters(16, 48, 96))],
    "no BatchNormalization": [network(without_normalization)],
    "BatchNormalization in all blocks": [network(with_normalization_everywhere)],
    "no average of weights": [
        (keras.optimizers, "Adam", without_average), (keras.callbacks, "SwapEMAWeights", nothing)
    ],
    "constant learning rate": [(keras.callbacks, "ReduceLROnPlateau", nothing)],
    "min_delta 0": [(common, "MIN_DELTA", 0)],
}
HIGH_RATE = (trainings, "HYPERPARAMETERS", trainings.HYPERPARAMETERS | {"learning_rate": 0.01})
VARIANTS |= {
    f"{name}, learning rate 0.01": [*VARIANTS[name], HIGH_RATE]
    for name in ("as it is", "without RandomErasing", "no average of weights", "constant learning rate")
}
TIME_ONLY = {
    "pooling last in each block": [network(pooled_last)],
    "steps_per_execution 1": [(keras, "Sequential", OneStepAtATime)],
    "from_tensor_slices": [(common, "dataset", from_slices)],
    "validation batches of 128": [
        (common, "dataset", lambda images, labels, batch_size, **options: dataset(images, labels, 128, **options))
    ],
}


def train(name, seed):
    with contextlib.ExitStack() as stack:
        for place in (VARIANTS | TIME_ONLY)[name]:
            stack.enter_context(mock.patch.object(*place))
        epochs = TIMING_EPOCHS if name in TIME_ONLY else None
        return trainings.train(seed, hyperparameters=trainings.HYPERPARAMETERS, epochs=epochs)


if __name__ == "__main__":
    trainings.compare(__doc__, VARIANTS | TIME_ONLY, train, TIME_ONLY, SEEDS)
