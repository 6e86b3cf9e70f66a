"""Models: what tells one network from another, and those that a search leaves behind."""

import contextlib
import hashlib
import re

from tuning.command_line import one_line
from tuning.environment import keras
from tuning.folder import whole_file


def fingerprint(model):
    """Eight digits that change with a network, not with names, line numbers, folders or random default seeds."""
    config = str([type(layer).__name__ for layer in model.layers])  # of a class that doesn't say what it is made of
    with contextlib.suppress(NotImplementedError, TypeError, ValueError):
        config = re.sub(r'"(name|seed|code)": [^],}]*', "", model.to_json())
    return hashlib.sha256(config.encode()).hexdigest()[:8]


def load_best(tuner):
    """The best trials' models, the best one first, which compute in float32 on any machine: a list."""
    tuner.precision, models = "float32", []
    for trial in tuner.shared_oracle.best_trials():
        models.append(model := tuner.load_model(trial))
        model.name = f"trial_{trial.number}"
        compile_like(model, model)
    if not models:
        print("No model is saved: fit() did not use its callbacks, one of which saves the weights of the best epoch")
    return models


def compile_like(model, other):
    """Compiles a model like another one, if that is; but with an optimizer that has next to no state to be stored."""
    if other.compiled:
        # Private: get_compile_config() has names in place of losses and metrics that nobody has registered.
        model.compile(**other._compile_config.config | {"optimizer": "sgd"})
        model.optimizer.build(model.trainable_variables)  # or who loads it is warned of variables that are missing


def save(model, path):
    """Writes a model as one file; where Keras can't, says so."""
    try:
        with whole_file(path) as draft:
            model.save(draft)
    except (NotImplementedError, TypeError, ValueError) as reason:  # a class of the user's that can't be described
        print(f"{path.name} can't be made, the trials' checkpoints have the weights: {one_line(reason)}")


def measure(model, tuner, test_data):
    """A model's loss and metrics, if it has any, on the test data, test_..., and on the validation data, val_..."""
    found, search = {}, tuner.fit_kwargs  # in the batches of the search: it needs no more memory than that
    parts = {"test": (test_data, None), "val": (search.get("validation_data"), search.get("validation_steps"))}
    for part, (data, steps) in parts.items():
        if model.compiled and data is not None:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
            options = {"sample_weight": weights, "batch_size": search.get("batch_size"), "steps": steps}
            metrics = model.evaluate(x, y, **options, verbose=0, return_dict=True)
            found |= {f"{part}_{name}": float(value) for name, value in metrics.items()}
    return found


def mean(models):
    """A compiled keras.Model whose output is the mean of the models' outputs; None where there is no such mean."""
    if len(models) < 2:
        return None
    if not all(getattr(model, "inputs", None) and len(model.outputs) == 1 for model in models):
        print("best_four.keras can't be made: the models have no inputs that are known, or more than one output")
        return None
    inputs = models[0].inputs[0] if isinstance(models[0], keras.Sequential) else models[0].input  # one, a list, a dict
    together = keras.Model(inputs, keras.layers.average([model(inputs) for model in models]), name="mean")
    compile_like(together, models[0])
    return together
