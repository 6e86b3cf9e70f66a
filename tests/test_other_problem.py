"""The engine, unchanged, on other people's problems: adaptations that users of KerasTuner publish, on digits."""

import dataclasses
import gc
import itertools
import json
import re
import signal
import struct
import warnings

import numpy as np
import pytest
from conftest import assert_one_line, result, trial_rows, trials
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tuning import tuner as tuners
from tuning.command_line import Parser
from tuning.environment import keras, kt, tf
from tuning.models import fingerprint
from tuning.report import report

layers, ops = keras.layers, keras.ops
logits, logit = keras.losses.SparseCategoricalCrossentropy, keras.losses.BinaryCrossentropy
CLASSES = [str(digit) for digit in range(10)]
PICTURES, DIGITS = load_digits().images, load_digits().target
TRAIN, VALIDATION, TEST = range(160), range(200, 280), range(300, 380)


def changed(inputs=lambda x: x / 16, targets=lambda y: y):
    return lambda part: (inputs(PICTURES[part]), targets(DIGITS[part]))


def as_text(x):
    return tf.constant([" ".join(f"p{int(value)}" for value in each.flat) for each in x])


def dataset(part):
    return (tf.data.Dataset.from_tensor_slices(images(part)).batch(32),)


images = changed()


def compiled(body, loss="sparse_categorical_crossentropy", metrics=("accuracy",), **options):
    """A model: of layers on images of 8 x 8, or the one that is given."""
    model = keras.Sequential([keras.Input((8, 8)), *body]) if isinstance(body, list) else body
    model.compile("sgd", loss, metrics=list(metrics), **options)
    return model


def head(*options):
    return [layers.Flatten(), layers.Dense(*options or (10, "softmax"))]


def network(*options, outputs=10, activation="softmax", name="units", **more):
    """A build function; the options are those of compiled()."""

    def build(hp):
        hidden = layers.Dense(hp.Int(name, 8, 64), "relu")
        return compiled([layers.Flatten(), hidden, *head(outputs, activation)], *options, **more)

    return build


def layers_in_a_loop(hp):
    body = [layers.Dense(hp.Int(f"units_{i}", 8, 64), "relu") for i in range(hp.Int("num_layers", 1, 3))]
    if hp.Boolean("dropout"):
        body.append(layers.Dropout(hp.Float("rate", 0.1, 0.5)))
    return compiled([*body, *head()])


def conditional_scope(hp):
    kind = hp.Choice("kind", ["dense", "cnn"])
    with hp.conditional_scope("kind", ["dense"]):
        if kind == "dense":
            body = [layers.Dense(hp.Int("units", 8, 64))]
    with hp.conditional_scope("kind", ["cnn"]):
        if kind == "cnn":
            body = [layers.Reshape((8, 8, 1)), layers.Conv2D(hp.Int("filters", 2, 8), 3)]
    return compiled([*body, *head()])


def augmented(hp):
    body = [layers.Reshape((8, 8, 1)), layers.RandomCrop(8, 8), layers.Lambda(lambda x: x / 16)]
    return compiled([*body, layers.Dense(hp.Int("units", 8, 64)), *head()])


def of_texts(hp):
    vectorize = layers.TextVectorization(output_sequence_length=64)
    vectorize.adapt(as_text(PICTURES[:100]))
    body = [vectorize, layers.Embedding(30, hp.Int("units", 4, 16)), *head()]
    return compiled(keras.Sequential([keras.Input((), dtype="string"), *body]))


def of_a_table(hp):
    size, kind = keras.Input((1,), name="size"), keras.Input((1,), name="kind", dtype="string")
    kinds = layers.StringLookup(vocabulary=[f"k{i}" for i in range(17)], output_mode="one_hot")(kind)
    hidden = layers.Dense(hp.Int("units", 8, 64))(layers.Concatenate()([size, kinds]))
    return compiled(keras.Model({"size": size, "kind": kind}, layers.Dense(10, "softmax")(hidden)))


def of_two_inputs(hp):
    halves = [keras.Input((4, 8)), keras.Input((4, 8))]
    hidden = layers.Dense(hp.Int("units", 8, 64))(layers.Flatten()(layers.Concatenate(axis=1)(halves)))
    return compiled(keras.Model(halves, layers.Dense(10, "softmax")(hidden)))


def oddly_named(hp):
    hp.Float("épochs 轮数 $x_1$", 0.1, 1), hp.Int("status", 1, 9), hp.Float("val_accuracy", 0.1, 1), hp.Int("$", 1, 9)
    return network(name="epochs")(hp)


class Subclassed(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.hidden, self.head = layers.Dense(units, "relu"), keras.Sequential(head())

    def call(self, inputs):
        return self.head(self.hidden(inputs))


class TunesFit(kt.HyperModel):
    build = staticmethod(network())

    def fit(self, hp, model, *args, batch_size, **kwargs):
        kwargs["shuffle"] = hp.Boolean("shuffle")
        return model.fit(*args, batch_size=hp.Choice("batch_size", [16, 32, 64]), **kwargs)


class Returns(kt.HyperModel):
    build = staticmethod(network())

    def __init__(self, result):
        super().__init__()
        self.result = result  # what fit() returns, of an accuracy that it has measured in its own way

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        model.fit(x, y, **kwargs)
        return self.result(float(np.mean(model.predict(validation_data[0], verbose=0).argmax(1) == 0)))


class CustomTrainingLoop(kt.HyperModel):
    """As in KerasTuner's guide."""

    def build(self, hp):
        hidden = layers.Dense(hp.Choice("units", [32, 64, 128]), "relu")
        return keras.Sequential([keras.Input((8, 8)), layers.Flatten(), hidden, layers.Dense(10)])

    def fit(self, hp, model, x, y, validation_data, callbacks=None, **kwargs):
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(hp.Int("batch_size", 32, 128, step=32, default=64))
        optimizer = keras.optimizers.Adam(hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3))
        loss, variables, losses = logits(from_logits=True), model.trainable_variables, []
        for callback in callbacks:
            callback.set_model(model)
        for epoch in range(2):
            for images, labels in batches:
                with tf.GradientTape() as tape:
                    value = loss(labels, model(images))
                optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))
            losses.append(float(loss(validation_data[1], model(validation_data[0]))))
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs={"my_metric": losses[-1]})
        return min(losses)


def my_loss(y_true, y_pred):
    return ops.mean(ops.square(ops.one_hot(ops.cast(ops.reshape(y_true, [-1]), "int32"), 10) - y_pred), axis=-1)


def f1(y_true, y_pred):  # batch by batch, as it was written for the first versions of Keras
    right = ops.sum(ops.round(ops.clip(y_true * y_pred, 0, 1)))
    precision, recall = right / (ops.sum(ops.round(y_pred)) + 1e-7), right / (ops.sum(y_true) + 1e-7)
    return 2 * precision * recall / (precision + recall + 1e-7)


class MyMetric(keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(ops.max(y_pred, axis=1))


@dataclasses.dataclass
class Case:
    """What a user changes, and what is to be seen; `lacks` are in the lines that say what can't be made."""

    hypermodel: object = dataclasses.field(default_factory=network)
    data: object = images
    search: dict = dataclasses.field(default_factory=dict)  # more arguments; None for none
    objective: object = "val_accuracy"
    options: dict = dataclasses.field(default_factory=dict)  # of the tuner
    classes: list | None = None  # for pictures of errors
    strategy: object = tuners.RandomSearch
    trials: int = 2
    resumed: bool = False  # after Ctrl-C, as well
    lacks: tuple = ()


bayesian = {"strategy": tuners.BayesianOptimization, "trials": 3}
one_hot = changed(targets=lambda y: keras.utils.to_categorical(y, 10))
parity = {"data": changed(targets=lambda y: y % 2), "classes": ["even", "odd"]}
growing = kt.HyperParameters()
growing.Int("num_layers", 2, 3)
table = changed(lambda x: {"size": x.sum((1, 2)), "kind": tf.constant([f"k{int(each)}" for each in x[:, 4, 4]])})
weights = np.linspace(0, 1, len(VALIDATION))
(validation,) = dataset(VALIDATION)
CASES = {
    "layers in a loop": Case(layers_in_a_loop, resumed=True, trials=3),
    "layers in a loop, Bayesian": Case(layers_in_a_loop, resumed=True, **bayesian),
    "conditional scope": Case(conditional_scope, resumed=True, **bayesian),
    "batch size tuned in fit": Case(TunesFit(), resumed=True),
    "new entries not tuned": Case(layers_in_a_loop, options={"hyperparameters": growing, "tune_new_entries": False}),
    "fit returns a float": Case(Returns(lambda value: value), objective=kt.Objective("score", "max")),
    "fit returns a float for val_accuracy": Case(Returns(lambda value: value)),
    "fit returns a dict": Case(Returns(lambda value: {"a": value, "b": 1.0}), objective=kt.Objective("a", "min")),
    "custom training loop": Case(CustomTrainingLoop(), objective=kt.Objective("my_metric", "min"), resumed=True),
    "subclassed": Case(lambda hp: compiled(Subclassed(hp.Int("units", 8, 64))), 
        lacks=["best_model.keras can't be made.*Object Subclassed", "best_four.keras can't be"]),
    "no hyperparameters": Case(lambda hp: compiled(head()), trials=1),
    "regression": Case(network("mse", ["mae"], outputs=1, activation=None), objective=kt.Objective("val_mae", "min")),
    "several objectives": Case(objective=["val_loss", kt.Objective("val_accuracy", "max")], **bayesian),
    "labels one-hot": Case(network("categorical_crossentropy"), one_hot, classes=CLASSES),
    "one sigmoid": Case(network("binary_crossentropy", outputs=1, activation="sigmoid"), **parity),
    "one logit": Case(network(logit(from_logits=True), outputs=1, activation=None), **parity),
    "logits": Case(network(logits(from_logits=True), activation=None), classes=CLASSES),
    "sample weights": Case(search={"sample_weight": np.ones(len(TRAIN))}, classes=CLASSES),
    "class weights": Case(search={"class_weight": {digit: digit + 1 for digit in range(10)}}),
    "texts": Case(of_texts, changed(as_text)),
    "a table": Case(of_a_table, table),
    "two inputs": Case(of_two_inputs, changed(lambda x: [x[:, :4], x[:, 4:]])),
    "datasets": Case(data=dataset, search={"batch_size": None, "shuffle": False}, classes=CLASSES),
    "validation data with weights": Case(search={"validation_data": (*images(VALIDATION), weights)}),
    "validation split": Case(search={"validation_data": None, "validation_split": 0.2}),
    "validation steps": Case(search={"validation_data": validation.repeat(), "validation_steps": 2}),
    "no validation": Case(search={"validation_data": None}, objective="accuracy"),
    "own loss and metrics": Case(network(my_loss, ["accuracy", MyMetric(name="own")]), resumed=True),
    "F1 by batch": Case(network("categorical_crossentropy", [f1]), one_hot, objective=kt.Objective("val_f1", "max")),
    "executions per trial": Case(options={"executions_per_trial": 2}, resumed=True, trials=1),
    "augmented": Case(augmented, resumed=True),
    "odd names": Case(oddly_named, **bayesian),
}  # fmt: skip


def interrupting():
    """A callback: Ctrl-C at the end of the third epoch of a search."""
    count = itertools.count(1)

    def end_epoch(epoch, logs):
        if next(count) == 3:
            signal.raise_signal(signal.SIGINT)

    return keras.callbacks.LambdaCallback(on_epoch_end=end_epoch)


def search(case, folder, *options, callbacks=()):
    """Searches as a script with these options does, in this process."""
    options = ["--max-trials", str(case.trials), "--workers=1", "--results-dir", str(folder), *options]
    args = Parser("").parse_args(options)
    args.initial_points = 2
    tuner = case.strategy(case.hypermodel, case.objective, "digits", args, **case.options)
    data = case.data(VALIDATION)
    given = {"validation_data": data if len(data) > 1 else data[0], "epochs": 2, "batch_size": 32} | case.search
    given = {name: value for name, value in given.items() if value is not None}
    tuner.search(*case.data(TRAIN), callbacks=[*callbacks], **given)
    report(tuner, *case.data(TEST), image_classes=case.classes)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """KerasTuner collects garbage before each trial: not what is there before, which takes a third of a search."""
    gc.freeze()


@pytest.mark.parametrize("name", CASES)
def test_what_works_in_kerastuner_is_searched_reported_and_resumed(name, tmp_path, capfd):
    case, one, two = CASES[name], tmp_path / "one" / "digits", tmp_path / "two" / "digits"
    with warnings.catch_warnings(record=True) as warned:
        search(case, one.parent)
        output, errors = capfd.readouterr()
        if case.resumed:
            with pytest.raises(KeyboardInterrupt):
                search(case, two.parent, callbacks=[interrupting()])
        before = [path.stat().st_mtime_ns for path in one.glob("trial_*/trial.json")]
        search(case, (two if case.resumed else one).parent)
        again, more_errors = capfd.readouterr()
    assert errors + more_errors == ""
    assert [str(each.message) for each in warned if not issubclass(each.category, DeprecationWarning)] == []
    assert result(output) == result(again)
    assert not case.resumed or trials(one) == trials(two)
    assert [path.stat().st_mtime_ns for path in one.glob("trial_*/trial.json")] == before  # nothing is trained again
    lines = re.findall(r".*(?:can't be|No model is|failed).*", output)
    assert len(lines) == len(case.lacks) and all(map(re.search, case.lacks, lines)), lines

    rows, best = trial_rows(one), json.loads((one / "summary.json").read_text())["best"]
    assert [row["status"] for row in rows] == ["COMPLETED"] * case.trials
    assert f": {float(rows[0]['score']):.4f} (trial {rows[0]['trial']} of {case.trials})\n" in result(output)
    assert re.findall(r"\n  (.+): ", result(output)) == [*best["hyperparameters"]]
    assert ("\nTest " in result(output)) == (name != "custom training loop")  # whose model has no loss
    if name == "conditional scope":  # what was not used is not shown
        assert all(bool(row["units"]) == (row["kind"] == "dense") != bool(row["filters"]) for row in rows)
    if not case.lacks:
        model = keras.models.load_model(one / "best_model.keras", compile=False, safe_mode=False)
        model.predict(case.data(TEST)[0], verbose=0)
    assert (one / "mistakes.png").exists() == (one / "confusion_matrix.png").exists() == bool(case.classes)


def test_tensorboard_gets_each_trial_s_learning_curves(tmp_path):
    search(Case(), tmp_path, "--tensorboard")
    for number, (_, score) in trials(tmp_path / "digits").items():
        path, = tmp_path.glob(f"digits/tensorboard/{number}/**/validation/events*")  # fmt: skip
        accumulator = EventAccumulator(str(path))
        accumulator.Reload()
        events = accumulator.Tensors("epoch_accuracy")
        assert max(struct.unpack("f", event.tensor_proto.tensor_content)[0] for event in events) == pytest.approx(score)


def test_trials_that_fail_say_why_and_where_none_was_completed_one_line_says_so(tmp_path, capfd):
    with pytest.raises(SystemExit, match="1"):
        search(Case(data=changed(targets=lambda y: y + 1)), tmp_path)
    output, errors = capfd.readouterr()
    reason = r"InvalidArgumentError: .* 10 .*\[0, 10\)"  # each of TensorFlow's operations has its own words
    assert len(re.findall(rf"Trial . of 2: failed.*: {reason}", output)) == 2
    assert_one_line(errors, "no trial was completed", "trial_1: InvalidArgumentError")
    files = [json.loads(path.read_text())["message"] for path in tmp_path.glob("digits/trial_*/trial.json")]
    assert len(files) == 2 and all(part in each for each in files for part in ("[0, 10)", "Traceback", "model.fit"))


NETWORK = """
def network(units):
    layers = [keras.layers.RandomCrop(6, 6), keras.layers.Lambda(lambda x: x / 16), keras.layers.Dropout(0.1)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(units)])
"""


def test_a_network_is_known_again_in_another_folder_and_line_and_another_one_is_not():
    here, moved = {"keras": keras}, {"keras": keras}
    exec(compile(NETWORK, "/here.py", "exec"), here)
    exec(compile("\n" * 100 + NETWORK, "/moved/there.py", "exec"), moved)
    assert fingerprint(here["network"](8)) == fingerprint(moved["network"](8)) != fingerprint(here["network"](9))
