"""What --workers 2 gains over one: trials per hour of the same search, and the memory of each process.

    python benchmarks/workers.py [--script random_search_tuning.py] [--epochs 4] [--max-trials 10]

Prints a Markdown table. With few epochs all trials take the same time, so that no worker waits for the other at the
end; the full search is in speed.py. About 8 minutes; nothing else should run on the machine. Linux only.
"""

import argparse

from measuring import machine, search, table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", default="random_search_tuning.py")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--max-trials", type=int, default=10)
    settings, others = parser.parse_known_args()  # the others are the script's
    options = ["--epochs", settings.epochs, "--max-trials", settings.max_trials, *others]
    rows, rates, scores = [], [], []
    for workers in (1, 2):
        seconds, peaks, summary = search(settings.script, "--workers", workers, *options)
        rates.append(settings.max_trials / seconds * 3600)
        scores.append([trial["val_accuracy"] for trial in summary["trials"]])
        memory = ", ".join(f"{peak / 1e9:.2f}" for peak in peaks)
        rows.append([workers, f"{rates[-1]:.1f}", memory, f"{summary['best']['val_accuracy']:.4f}"])
    print(f"{machine(summary['hardware'], summary['versions'])}\n\n{settings.script}, {settings.epochs} epochs\n")
    print(table(["workers", "trials per hour", "peak memory of each process, GB", "best validation accuracy"], rows))
    same = sum(one == other for one, other in zip(*scores))
    print(f"\nTwice the workers, {rates[1] / rates[0]:.2f} times the trials per hour; {same} of the "
          f"{len(scores[0])} trials have the same validation accuracy, digit for digit")


if __name__ == "__main__":
    main()
