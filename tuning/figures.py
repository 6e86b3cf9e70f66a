"""The pictures of a search, 900 pixels wide: at half size their text can still be read."""

import scipy.special
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from tuning.display import spelled
from tuning.environment import np
from tuning.folder import whole_file

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#999999"  # of Okabe and Ito, told apart by the colour-blind
PROPOSERS = {"random": (BLUE, "o"), "surrogate": (VERMILLION, "^")}
SEARCHES = {"color": BLUE, "linewidth": 4}, {"color": VERMILLION, "linewidth": 2, "linestyle": "--", "marker": "^"}


def new(height, rows=1, columns=1):
    """A figure of so many inches, and its axes, an array of shape (rows, columns)."""
    figure = Figure(figsize=(6, height), dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(path, figure):
    """Writes a figure as a PNG file, with a legend above it of what its axes have named."""
    handles = {label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels())}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False)
    with whole_file(path) as draft:
        figure.savefig(draft)


def draw_best_so_far(ax, records, objective, **style):
    """Draws the best score after each trial."""
    best = np.fmax if objective.direction == "max" else np.fmin
    scores = best.accumulate([np.nan if each["score"] is None else each["score"] for each in records])
    ax.step([each["trial"] for each in records], scores, where="post", **style)
    ax.locator_params(axis="x", integer=True)


def comparison(searches, objective):
    """The best score so far after each trial of several searches: their summaries by their names."""
    figure, [[ax]] = new(3.8)
    for (name, summary), style in zip(searches.items(), SEARCHES):
        draw_best_so_far(ax, summary["trials"], objective, label=name, **style)
    ax.set(xlabel="trial", ylabel=f"{spelled(objective.name)} of the best so far")
    return figure


def search(records, best, objective, space):
    """Each trial's score by its number and each hyperparameter, and learning curves; the `best` record stands out."""
    rows = (len(space) + 3) // 2
    figure, axes = new(2.8 * rows, rows, 2)
    draw_best_so_far(axes[0, 0], records, objective, color=GREY, label="best so far")
    for ax, hp in zip(axes.flat, [None, *space]):
        for each in records:
            x = each["hyperparameters"].get(hp.name) if hp else each["trial"]
            if each["score"] is not None and x is not None:
                x = x if hp is None or hasattr(hp, "min_value") else str(x)
                colour, marker = PROPOSERS[each["proposed_by"]]
                ax.scatter(x, each["score"], 45, colour, marker=marker, zorder=3, label=each["proposed_by"])
                if each is best:
                    ax.scatter(x, each["score"], 150, "none", edgecolors="black", zorder=4, label="best")
        ax.set_xlabel(spelled(hp.name if hp else "trial"), parse_math=False)
        ax.margins(0.12)
        if getattr(hp, "sampling", None) == "log":
            ax.set(xscale="log", xlim=(hp.min_value / 1.5, hp.max_value * 1.5))
    ax, *unused = axes.flat[len(space) + 1 :]
    for each in records:
        values = each["curves"].get(objective.name, [])
        style = {"color": BLUE, "linewidth": 3, "zorder": 3} if each is best else {"color": GREY, "linewidth": 1}
        ax.plot(range(1, len(values) + 1), values, **style)
    ax.set_xlabel("epoch")
    for ax in unused:
        ax.set_axis_off()
    figure.supylabel(spelled(objective.name), fontsize="medium")
    return figure


def errors(model, test_data, batch_size, class_names):
    """Pictures of an image classifier's errors on test data as for report(), by their names; prints the worst class.

    Targets are class numbers or one-hot; outputs probabilities or logits, of each class or of the second of two.
    """
    if len(test_data) == 1:  # a dataset
        test_data = [np.concatenate(each) for each in zip(*test_data[0].as_numpy_iterator())]
    images, targets, outputs = *test_data[:2], model.predict(test_data[0], batch_size=batch_size, verbose=0)
    targets = targets.argmax(axis=1) if targets.ndim == 2 and targets.shape[1] > 1 else targets.reshape(-1).astype(int)
    logits = outputs.min() < 0 or outputs.max() > 1.001
    if outputs.shape[1] == 1:
        outputs = np.hstack([0 * outputs if logits else 1 - outputs, outputs])
    probabilities = scipy.special.softmax(outputs, axis=1) if logits else outputs
    figure, [[ax]] = new(5.6)
    options = {"labels": range(len(class_names)), "display_labels": class_names, "xticks_rotation": 90, "ax": ax}
    options |= {"cmap": "Blues", "colorbar": False}
    matrix = ConfusionMatrixDisplay.from_predictions(targets, probabilities.argmax(axis=1), **options).confusion_matrix
    recalls = matrix.diagonal() / np.maximum(1, matrix.sum(axis=1))
    ax.set_yticklabels([f"{name}  {recall:.1%}" for name, recall in zip(class_names, recalls)])
    ax.set(xlabel="predicted class", ylabel="true class (number of images) and its recall")
    print(f"Worst class: {class_names[recalls.argmin()]}, recall {recalls.min():.3f}")
    return {"confusion_matrix": figure, "mistakes": mistakes(images, targets, probabilities, class_names)}


def mistakes(images, targets, probabilities, class_names):
    """The 25 wrong predictions that the model was surest of, of images of shape (n, height, width[, channels])."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != targets)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:25]
    figure, axes = new(8.7, 5, 5)
    figure.suptitle("true class \N{RIGHTWARDS ARROW} predicted class, and the model's confidence", fontsize=10)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, i in zip(axes.flat, surest):
        ax.imshow(images[i], cmap="gray_r")
        names = f"{class_names[targets[i]]}\n\N{RIGHTWARDS ARROW} {class_names[predicted[i]]}"
        ax.set_title(f"{names}\n{confidence[i]:.1%}", fontsize=9.5)
    return figure
