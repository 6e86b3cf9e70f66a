"""The pictures of a search."""

import warnings

import matplotlib.style
import scipy.special
import sklearn.metrics
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tuning.environment import np
from tuning.folder import whole_file
from tuning.text import spelled

# Colours of Okabe and Ito, told apart by the colour-blind as well.
BLUE, VERMILLION, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#999999"
PROPOSERS = {  # colour, marker, and text of the legend
    "random": (BLUE, "o", "random"),
    "surrogate": (VERMILLION, "^", "proposed by the Gaussian process"),
}


def new(height):
    """A figure 900 pixels wide and so many inches high, 150 pixels each: at half size its text can still be read."""
    return Figure(figsize=(6, height), dpi=150, layout="constrained")


def save(path, figure):
    """Writes a figure as a PNG file."""
    with whole_file(path) as draft, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font lacks
        figure.savefig(draft)


def best_so_far(records, objective):
    """The best value of the objective up to each trial, an array of shape (trials,); NaN until one has completed."""
    best = np.fmax if objective.direction == "max" else np.fmin
    return best.accumulate(np.array([record[objective.name] for record in records], float))


def scatter_trials(ax, records, objective, x, legend=True):
    """Draws the completed trials' objective against x(record), with a marker for who proposed them."""
    completed = [record for record in records if record[objective.name] is not None]
    for proposer, (colour, marker, label) in PROPOSERS.items():
        if chosen := [record for record in completed if record["proposed_by"] == proposer]:
            y = [record[objective.name] for record in chosen]
            style = {"marker": marker, "zorder": 3, "label": label if legend else None}
            ax.scatter([x(record) for record in chosen], y, 45, colour, **style)


def progress(records, objective):
    """Each trial's objective and the best so far; failed trials are crosses at the bottom."""
    figure = new(3.8)
    ax = figure.subplots()
    numbers = [record["trial"] for record in records]
    ax.step(numbers, best_so_far(records, objective), color=GREY, linewidth=2, where="post", label="best so far")
    scatter_trials(ax, records, objective, lambda record: record["trial"])
    if failed := [record["trial"] for record in records if record[objective.name] is None]:
        bottom = ax.get_xaxis_transform()
        ax.scatter(failed, [0.04] * len(failed), 45, BLACK, marker="x", transform=bottom, label="failed")
    ax.margins(y=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=spelled(objective.name))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def hyperparameters(records, best, objective, space):
    """The objective against each hyperparameter of the search space; a ring is around the best trial."""
    rows = -(-len(space) // 2)
    figure = new(2.8 * rows)
    axes = figure.subplots(rows, 2, sharey=True, squeeze=False)
    for ax, hp in zip(axes.flat, space):
        first = hp is space[0]
        active = [record for record in records if hp.name in record["hyperparameters"]]
        scatter_trials(ax, active, objective, lambda record: record["hyperparameters"][hp.name], legend=first)
        if hp.name in best["hyperparameters"]:
            ring = {"facecolors": "none", "edgecolors": BLACK, "label": "best" if first else None}
            ax.scatter(best["hyperparameters"][hp.name], best[objective.name], 150, zorder=4, **ring)
        ax.set_xlabel(spelled(hp.name))
        ax.margins(x=0.12 if hasattr(hp, "min_value") else 0.4, y=0.12)
        if getattr(hp, "sampling", None) == "log":
            ax.set(xscale="log", xlim=(hp.min_value / 1.5, hp.max_value * 1.5))
    for ax in axes.flat[len(space):]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel(spelled(objective.name))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def learning_curves(records, best, objective):
    """The objective after each epoch, one line a trial; the best trial's is bold, its best epoch marked."""
    figure = new(3.8)
    ax = figure.subplots()
    others = "other trials"
    for record in records:
        values = record["curves"].get(objective.name, ())
        epochs = range(1, len(values) + 1)
        if record is best:
            mark = {"marker": "o", "markevery": [best["best_epoch"] - 1]}
            label = f"trial {best['trial']}, the best: {best[objective.name]:.4f} in epoch {best['best_epoch']}"
            ax.plot(epochs, values, color=BLUE, linewidth=3, zorder=3, label=label, **mark)
        else:
            ax.plot(epochs, values, color=GREY, linewidth=1, label=others)
            others = None  # one entry of the legend for all
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel=spelled(objective.name))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def comparison(searches, objective):
    """The best value so far of several searches, a dictionary from the strategy's name to its trials' records."""
    figure = new(3.8)
    ax = figure.subplots()
    styles = [{"color": BLUE, "linewidth": 4}, {"color": VERMILLION, "linewidth": 2, "linestyle": "--", "marker": "^"}]
    for (strategy, records), style in zip(searches.items(), styles):
        numbers = [record["trial"] for record in records]
        ax.step(numbers, best_so_far(records, objective), where="post", label=strategy, **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=f"best {spelled(objective.name)} so far")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


# --- Of a classifier --------------------------------------------------------------------------------------------------


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
        outputs = scipy.special.expit(outputs) if logits else outputs
        return targets, np.hstack([1 - outputs, outputs])
    return targets, scipy.special.softmax(outputs, axis=1) if logits else outputs


def confusion_matrix(targets, probabilities, class_names):
    """How many examples of each class (row) were taken for which (column); the colour is the share of the row.

    Args:
        targets, probabilities: as classes() returns them.
        class_names: one for each class.
    """
    labels = range(len(class_names))
    counts = sklearn.metrics.confusion_matrix(targets, probabilities.argmax(axis=1), labels=labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new(5.6)
    ax = figure.subplots()
    display = sklearn.metrics.ConfusionMatrixDisplay(shares, display_labels=class_names)
    display.plot(ax=ax, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1})
    for (true, predicted), text in np.ndenumerate(display.text_):
        count = counts[true, predicted]
        text.set_text(count or "")
    ax.set_xticks(labels, class_names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set(xlabel="predicted class", ylabel="true class (number of images)")
    return figure


def mistakes(images, targets, probabilities, class_names):
    """The 25 wrong predictions that the model was surest of, each titled: true -> predicted, confidence.

    Args:
        images: of shape (n, height, width) or (n, height, width, channels).
        targets, probabilities, class_names: as for confusion_matrix().
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != targets)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:25]
    figure = new(8.7)
    figure.suptitle("true class \N{RIGHTWARDS ARROW} predicted class, and the model's confidence", fontsize=10)
    axes = figure.subplots(5, 5)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, i in zip(axes.flat, surest):
        ax.imshow(images[i], cmap="gray_r")
        true, taken_for = class_names[targets[i]], class_names[predicted[i]]
        ax.set_title(f"{true}\n\N{RIGHTWARDS ARROW} {taken_for}\n{confidence[i]:.1%}", fontsize=9.5)
    return figure
