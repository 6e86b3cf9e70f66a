"""What a finished search leaves behind: its best model, tables, pictures, and a comparison with the other search.

Tables and pictures come from the stored files and the test images: a second run of a finished search makes them again.
"""

import csv

import common  # first: it sets up TensorFlow before anything else imports it

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import search
import storage

STRATEGIES = {  # by the name of the search's folder
    "fashion_mnist_cnn_random_search": "random search",
    "fashion_mnist_cnn_bayesian_optimization": "Bayesian optimization",
}
HYPERPARAMETERS = tuple(common.FORMATS)


def report(tuner, images, labels):
    """Writes all files of a finished search, prints its tables and, last, its result.

    Args:
        tuner: a search.Tuner whose search has ended.
        images, labels: those to test on, of shape (n, 28, 28), values 0 to 255, and (n,).

    Raises:
        common.SearchFailed: no trial was completed.
    """
    project = tuner.settings.project
    model, training = tuner.best_model()
    records = trial_records(tuner)
    probabilities = model.predict(images, batch_size=1000, verbose=0)
    write_csv(project / "trials.csv", records)
    for name, figure in {
        "progress": progress_figure(records),
        "hyperparameters": hyperparameters_figure(records),
        "learning_curves": learning_curves_figure(records, training),
        "confusion_matrix": confusion_matrix_figure(labels, probabilities),
        "mistakes": mistakes_figure(images, labels, probabilities),
    }.items():
        save_figure(project / f"{name}.png", figure)

    summary = summarize(tuner, records, training, labels, probabilities)
    summary["elapsed_seconds"] = tuner.oracle.stopwatch.save()
    storage.write_json(project / "summary.json", summary)
    print(f"\n{trials_table(records)}")
    compare(project, summary)
    print(f"\nModel, tables and pictures are in {search.printable(project)}")
    print(f"\n{result_lines(summary)}")


# --- Tables -----------------------------------------------------------------------------------------------------------


def trial_records(tuner):
    """Each ended trial of a search as a dictionary of plain values, in the order of the trials.

    `best_epoch` counts from 1, `seconds` are those in fit; `val_accuracy` and `best_epoch` of a failed trial are None.
    """
    trials = filter(search.has_ended, tuner.oracle.trials.values())
    return [trial_record(tuner.oracle, trial) for trial in sorted(trials, key=lambda trial: int(trial.trial_id))]


def trial_record(oracle, trial):
    """One ended trial as a dictionary of plain values; see trial_records()."""
    values, curves = trial.hyperparameters.values, search.learning_curves(trial)
    completed = trial.status == "COMPLETED"
    return {
        "trial": int(trial.trial_id) + 1,
        "proposed_by": "random" if oracle.is_random(trial) else "surrogate",
        "status": trial.status,
        **{name: values[name] for name in HYPERPARAMETERS},
        "dropout": round(values["dropout"], 6),  # its steps add up to 0.30000000000000004
        "best_epoch": trial.best_step + 1 if completed else None,
        "epochs": len(curves.get("val_accuracy", ())),
        "val_accuracy": trial.score if completed else None,
        "seconds": search.seconds_trained(trial),
        "message": None if completed else search.printable(trial.message),
        "curves": curves,
    }


def best_first(records):
    """Sorts records by validation accuracy, the failed ones last."""
    return sorted(records, key=lambda record: (record["val_accuracy"] is None, -(record["val_accuracy"] or 0)))


def write_csv(path, records):
    """Writes records with all their digits, without the learning curves, best first."""
    columns = [name for name in records[0] if name != "curves"]
    with storage.whole_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(best_first(records))


def aligned(rows):
    """Rows of cells as lines of text: the first column aligned to the left, the others to the right."""
    rows = [[search.printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def trials_table(records):
    """The trials for a terminal, best first, the failed ones last, each with its reason."""
    records = best_first(records)
    rows = [["trial", "units", "dropout", "learning rate", "optimizer", "best epoch", "val accuracy", "time"]]
    for record in records:
        completed = record["val_accuracy"] is not None
        rows.append([
            record["trial"],
            *common.formatted(record).values(),
            f"{record['best_epoch'] if completed else '-'} of {record['epochs']}",
            f"{record['val_accuracy']:.4f}" if completed else "failed",
            search.duration(record["seconds"]),
        ])
    proposers = [record["proposed_by"] for record in records]
    if "surrogate" in proposers:
        for row, proposer in zip(rows, ["proposed by", *proposers]):
            row.append(proposer)
    reasons = ["", *(record["message"] or "" for record in records)]
    return "\n".join(f"{line}  {reason}".rstrip() for line, reason in zip(aligned(rows), reasons))


def summarize(tuner, records, training, labels, probabilities):
    """Everything about a finished search but its time in one dictionary, as summary.json holds it.

    Args:
        tuner: a search.Tuner.
        records: its trial_records().
        training: the content of its best_model.json.
        labels, probabilities: of the test images, of shape (n,), and as predicted by the best model, of shape (n, 10).
    """
    best = best_first(records)[0]
    return {
        "strategy": STRATEGIES.get(tuner.settings.project.name, tuner.settings.project.name),
        "seed": tuner.settings.seed,
        "precision": tuner.settings.precision,
        "settings": storage.read_json(tuner.settings.project / "settings.json"),
        "best": {
            "trial": best["trial"],
            "hyperparameters": {name: best[name] for name in HYPERPARAMETERS},
            "val_accuracy": best["val_accuracy"],
            "val_loss": best["curves"]["val_loss"][best["best_epoch"] - 1],
            "test_accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
            "test_loss": float(np.mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities))),
        },
        "best_model_training": training,
        "seconds_in_fit": sum(record["seconds"] for record in records) + training["seconds"],
        "trials": records,
    }


def result_lines(summary):
    """The last lines of a search's output."""
    best = summary["best"]
    return "\n".join([
        "Best hyperparameters:",
        *(f"  {name}: {text}" for name, text in common.formatted(best["hyperparameters"]).items()),
        f"Best validation accuracy: {best['val_accuracy']:.4f} (trial {best['trial']} of {len(summary['trials'])})",
        f"Test accuracy: {best['test_accuracy']:.4f}",
        f"Total elapsed time: {search.duration(summary['elapsed_seconds'])}",
    ])


# --- Side by side -----------------------------------------------------------------------------------------------------


def compare(project, summary):
    """Prints a search beside the other strategy's in the same results folder, if there is one, and draws both."""
    summaries = {
        strategy: summary if folder == project.name else storage.read_json(project.parent / folder / "summary.json")
        for folder, strategy in STRATEGIES.items()
    }
    if project.name not in STRATEGIES or not all(summaries.values()):
        return
    try:
        table, figure = comparison_table(summaries), comparison_figure(summaries)
    except Exception:  # whatever a summary that is not of this version makes of its reader
        return
    print(f"\n{table}")
    drawn = project / "comparison.png"  # first in here: the other search may end at the same moment
    save_figure(drawn, figure)
    drawn.replace(project.parent / drawn.name)


def comparison_table(summaries):
    """The results of searches side by side, and a line about the settings in which they differ.

    Args:
        summaries: a dictionary from the strategy's name to the content of its summary.json.
    """
    columns = [
        [
            strategy,
            f"{summary['best']['val_accuracy']:.4f}",
            f"{summary['best']['test_accuracy']:.4f}",
            *common.formatted(summary["best"]["hyperparameters"]).values(),
            f"{summary['best']['trial']:d} of {len(summary['trials'])}",
            search.duration(summary["elapsed_seconds"]),
        ]
        for strategy, summary in summaries.items()
    ]
    names = ["", "best validation accuracy", "test accuracy", *HYPERPARAMETERS, "best trial", "total elapsed time"]
    lines = aligned(zip(names, *columns))
    settings = [summary["settings"] for summary in summaries.values()]
    differences = [
        f"{name} ({', '.join(str(each.get(name)) for each in settings)})"
        for name in dict.fromkeys(name for each in settings for name in each.keys())  # each once, in order
        if name != "initial_points" and any(each.get(name) != settings[0].get(name) for each in settings)
    ]
    if differences:
        lines.append(search.printable(f"The settings differ: {'; '.join(differences)}"))
    return "\n".join(lines)


# --- Pictures ---------------------------------------------------------------------------------------------------------

# Colours of Okabe and Ito, told apart by the colour-blind as well.
BLUE, VERMILLION, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#999999"
PROPOSERS = {"random": (BLUE, "o"), "surrogate": (VERMILLION, "^")}  # colour and marker
VAL_ACCURACY = "validation accuracy"
LABELS = {"units": "units of the dense layer", "learning_rate": "learning rate"}


def empty_figure(height):
    """A figure 900 pixels wide and so many inches high, 150 pixels each: at half size its text can still be read."""
    return Figure(figsize=(6, height), dpi=150, layout="constrained")


def save_figure(path, figure):
    """Writes a figure as a PNG file."""
    with storage.whole_file(path) as draft:
        figure.savefig(draft)


def best_so_far(records):
    """The best validation accuracy up to each trial, an array of shape (trials,); NaN until one has completed."""
    return np.fmax.accumulate(np.array([record["val_accuracy"] for record in records], float))


def scatter_trials(ax, records, x, legend=True):
    """Draws the completed trials' validation accuracy against record[x], told apart by who proposed them."""
    completed = [record for record in records if record["val_accuracy"] is not None]
    for proposer, (colour, marker) in PROPOSERS.items():
        if chosen := [record for record in completed if record["proposed_by"] == proposer]:
            accuracies = [record["val_accuracy"] for record in chosen]
            label = f"proposed by {'chance' if proposer == 'random' else 'the surrogate'}" if legend else None
            ax.scatter([record[x] for record in chosen], accuracies, 45, colour, marker=marker, zorder=3, label=label)


def progress_figure(records):
    """Each trial's validation accuracy and the best so far; failed trials are crosses at the bottom."""
    figure = empty_figure(3.8)
    ax = figure.subplots()
    numbers = [record["trial"] for record in records]
    ax.step(numbers, best_so_far(records), color=GREY, linewidth=2, where="post", label="best so far")
    scatter_trials(ax, records, "trial")
    failed = [record["trial"] for record in records if record["val_accuracy"] is None]
    if failed:
        bottom = ax.get_xaxis_transform()
        ax.scatter(failed, [0.04] * len(failed), 45, BLACK, marker="x", transform=bottom, label="failed")
    ax.margins(y=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=VAL_ACCURACY)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def hyperparameters_figure(records):
    """Validation accuracy against each hyperparameter; a ring is around the best trial."""
    figure = empty_figure(5.6)
    axes = figure.subplots(2, 2, sharey=True)
    best = best_first(records)[0]
    for ax, name in zip(axes.flat, HYPERPARAMETERS):
        scatter_trials(ax, records, name, legend=name == "units")
        ring = {"facecolors": "none", "edgecolors": BLACK, "label": "best" if name == "units" else None}
        ax.scatter(best[name], best["val_accuracy"], 150, zorder=4, **ring)
        ax.set_xlabel(LABELS.get(name, name))
        ax.margins(x=0.12, y=0.12)
    learning_rate = next(hp for hp in common.search_space().space if hp.name == "learning_rate")
    axes[1, 0].set(xscale="log", xlim=(learning_rate.min_value / 1.5, learning_rate.max_value * 1.5))
    axes[1, 1].margins(x=0.4)
    for ax in axes[:, 0]:
        ax.set_ylabel(VAL_ACCURACY)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def learning_curves_figure(records, training):
    """Validation accuracy after each epoch, one line a trial; the best trial's is bold, its best epoch marked.

    The dashed line is the mean of the best model's networks; `training` is the content of best_model.json.
    """
    figure = empty_figure(3.8)
    ax = figure.subplots()
    best = best_first(records)[0]
    others = "other trials"
    for record in records:
        accuracies = record["curves"].get("val_accuracy", ())
        epochs = range(1, len(accuracies) + 1)
        if record is best:
            mark = {"marker": "o", "markevery": [best["best_epoch"] - 1]}
            label = f"trial {best['trial']}, the best: {best['val_accuracy']:.4f} in epoch {best['best_epoch']}"
            ax.plot(epochs, accuracies, color=BLUE, linewidth=3, zorder=3, label=label, **mark)
        else:
            ax.plot(epochs, accuracies, color=GREY, linewidth=1, label=others)
            others = None  # one entry of the legend for all
    accuracies = training["curves"]["val_accuracy"]
    label = f"best model, mean of its networks; together {training['val_accuracy']:.4f}"
    ax.plot(range(1, len(accuracies) + 1), accuracies, color=VERMILLION, linestyle="--", label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel=VAL_ACCURACY)
    figure.legend(loc="outside upper center", frameon=False)
    return figure


def confusion_matrix_figure(labels, probabilities):
    """How many images of each class (row) were taken for which (column); the colour is the share of the row.

    Args:
        labels, probabilities: of shape (n,) and (n, 10).
    """
    counts = tf.math.confusion_matrix(labels, probabilities.argmax(axis=1), num_classes=10).numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = empty_figure(5.6)
    ax = figure.subplots()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (true, predicted), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[true, predicted] > 0.5 else "black"
            ax.text(predicted, true, count, color=colour, ha="center", va="center", fontsize=10)
    ax.set_xticks(range(10), common.CLASS_NAMES, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(10), common.CLASS_NAMES)
    ax.set(xlabel="predicted class", ylabel="true class (number of images)")
    return figure


def mistakes_figure(images, labels, probabilities):
    """The 25 wrong predictions that the model was surest of, each titled: true -> predicted, confidence.

    Args:
        images, labels, probabilities: of shape (n, 28, 28), (n,) and (n, 10).
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:25]
    figure = empty_figure(8.7)
    figure.suptitle("true class \N{RIGHTWARDS ARROW} predicted class, and the model's confidence", fontsize=10)
    axes = figure.subplots(5, 5)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, i in zip(axes.flat, surest):
        ax.imshow(images[i], cmap="gray_r", vmin=0, vmax=255)
        true, taken_for = common.CLASS_NAMES[labels[i]], common.CLASS_NAMES[predicted[i]]
        ax.set_title(f"{true}\n\N{RIGHTWARDS ARROW} {taken_for}\n{confidence[i]:.1%}", fontsize=9.5)
    return figure


def comparison_figure(summaries):
    """The best validation accuracy so far of several searches, from the strategy's name to its summary."""
    figure = empty_figure(3.8)
    ax = figure.subplots()
    styles = [{"color": BLUE, "linewidth": 4}, {"color": VERMILLION, "linewidth": 2, "linestyle": "--", "marker": "^"}]
    for (strategy, summary), style in zip(summaries.items(), styles):
        numbers = [record["trial"] for record in summary["trials"]]
        ax.step(numbers, best_so_far(summary["trials"]), where="post", label=strategy, **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=f"best {VAL_ACCURACY} so far")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
