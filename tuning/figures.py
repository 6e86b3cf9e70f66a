"""The pictures of a search."""

import warnings

import matplotlib.style
import scipy.special
import sklearn.metrics
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tuning.environment import np
from tuning.folder import whole_file
from tuning.tables import spelled

# Colours of Okabe and Ito, told apart by the colour-blind as well.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#999999"
PROPOSERS = {"random": (BLUE, "o"), "surrogate": (VERMILLION, "^")}
SEARCHES = [{"color": BLUE, "linewidth": 4}, {"color": VERMILLION, "linewidth": 2, "linestyle": "--", "marker": "^"}]


def plain_style():
    """A context in which pictures are drawn as matplotlib's authors meant it, whatever a matplotlibrc says."""
    return matplotlib.style.context("default", after_reset=True)


def new(height, rows=1, columns=1, **options):
    """A figure 900 pixels wide and so many inches high, 150 pixels each: at half size its text can still be read."""
    figure = Figure(figsize=(6, height), dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def save(path, figure):
    """Writes a figure as a PNG file."""
    with whole_file(path) as draft, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font lacks
        figure.savefig(draft)


def scatter(ax, records, x):
    """Draws the completed trials' scores against their x(record), with a marker for who proposed them."""
    for proposer, (colour, marker) in PROPOSERS.items():
        if chosen := [each for each in records if each["proposed_by"] == proposer and each["score"] is not None]:
            scores = [each["score"] for each in chosen]
            ax.scatter([x(each) for each in chosen], scores, 45, colour, marker, zorder=3, label=proposer)


def progress(searches, objective):
    """The best score so far after each trial, of one search or several; of one, each trial's score as well.

    Args:
        searches: a dictionary from a name to the records of a search's trials.
        objective: a kt.Objective.
    """
    figure, ax = new(3.8)
    best = np.fmax if objective.direction == "max" else np.fmin
    for (name, records), style in zip(searches.items(), SEARCHES):
        scores = best.accumulate([np.nan if each["score"] is None else each["score"] for each in records])
        ax.step([each["trial"] for each in records], scores, where="post", label=name, **style)
        if len(searches) == 1:
            scatter(ax, records, lambda each: each["trial"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=spelled(objective.name) + " of the best so far" * (len(searches) > 1))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def hyperparameters(records, best, objective, space):
    """The score against each hyperparameter of the search space; a ring is around the best trial."""
    rows = -(-len(space) // 2) or 1
    figure, axes = new(2.8 * rows, rows, 2, sharey=True, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, hp in zip(axes.flat, space):
        numeric = hasattr(hp, "min_value")
        points = [each for each in records if hp.name in each["hyperparameters"] and each["score"] is not None]
        values = {each["trial"]: each["hyperparameters"][hp.name] for each in points}
        values = values if numeric else {trial: str(value) for trial, value in values.items()}
        scatter(ax, points, lambda each, values=values: values[each["trial"]])
        if best in points:
            ax.scatter(values[best["trial"]], best["score"], 150, "none", edgecolors="black", zorder=4, label="best")
        ax.set_axis_on()
        ax.set_xlabel(spelled(hp.name), parse_math=False)
        ax.margins(x=0.12 if numeric else 0.4, y=0.12)
        if getattr(hp, "sampling", None) == "log":
            ax.set(xscale="log", xlim=(hp.min_value / 1.5, hp.max_value * 1.5))
    figure.supylabel(spelled(objective.name), fontsize="medium")
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def learning_curves(records, best, objective):
    """The objective after each epoch, one line a trial; the best trial's is bold, its best epoch marked."""
    figure, ax = new(3.8)
    for each in records:
        values = each["curves"].get(objective.name, [])
        style = {"color": GREY, "linewidth": 1}
        if each is best and values:
            style = {"color": BLUE, "linewidth": 3, "zorder": 3, "label": f"trial {best['trial']}, the best"}
            style |= {"marker": "o", "markevery": [best["best_epoch"] - 1]}
        ax.plot(range(1, len(values) + 1), values, **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel=spelled(objective.name))
    figure.legend(loc="outside upper center", frameon=False)
    return figure


def classes(targets, outputs):
    """Class numbers of shape (n,) and probabilities of shape (n, classes), whatever form a model's data have.

    Args:
        targets: class numbers of shape (n,) or (n, 1), or one-hot of shape (n, classes).
        outputs: probabilities or logits of shape (n, classes), or one probability or logit of shape (n, 1).
    """
    targets, outputs = np.asarray(targets), np.asarray(outputs, float)
    one_hot = targets.ndim == 2 and targets.shape[1] > 1
    targets = targets.argmax(axis=1) if one_hot else targets.reshape(-1).astype(int)
    logits = outputs.min() < 0 or outputs.max() > 1.001
    if outputs.shape[1] == 1:
        outputs = np.hstack([0 * outputs if logits else 1 - outputs, outputs])
    return targets, scipy.special.softmax(outputs, axis=1) if logits else outputs


def confusion_matrix(targets, probabilities, class_names):
    """How many examples of each class (row) were taken for which (column); the colour is the number."""
    figure, ax = new(5.6)
    sklearn.metrics.ConfusionMatrixDisplay.from_predictions(
        targets, probabilities.argmax(axis=1), labels=range(len(class_names)), display_labels=class_names,
        normalize=None, ax=ax, cmap="Blues", colorbar=False, xticks_rotation=90,
    )  # fmt: skip
    ax.set(xlabel="predicted class", ylabel="true class (number of images)")
    return figure


def mistakes(images, targets, probabilities, class_names):
    """The 25 wrong predictions that the model was surest of, each titled: true -> predicted, confidence.

    Args:
        images: of shape (n, height, width) or (n, height, width, channels).
        targets, probabilities: as classes() returns them.
        class_names: one for each class.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != targets)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:25]
    figure, axes = new(8.7, 5, 5)
    figure.suptitle("true class \N{RIGHTWARDS ARROW} predicted class, and the model's confidence", fontsize=10)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, i in zip(axes.flat, surest):
        ax.imshow(images[i], cmap="gray_r")
        true, taken_for = class_names[targets[i]], class_names[predicted[i]]
        ax.set_title(f"{true}\n\N{RIGHTWARDS ARROW} {taken_for}\n{confidence[i]:.1%}", fontsize=9.5)
    return figure
