"""What an option changes: the same random search with each of its values, one after the other.

    python benchmarks/variants.py precision [any options of random_search_tuning.py]
        what bfloat16 gains over float32, and whether it costs accuracy; --epochs 4 is enough for the time alone
    python benchmarks/variants.py workers [...]
        what 1, 2, 4, ... processes gain, up to as many as cores, with four epochs, so that trials take the same time
    python benchmarks/variants.py memory [...]
        whether memory grows from trial to trial: the peak of each process after 6, 18 and 30 short ones

Prints a Markdown table. Nothing else should run on the machine, but for memory. Linux only.
"""

import statistics
import sys

import joblib

from measuring import RANDOM_SEARCH, search, seconds_per_epoch, spread, table

CORES = joblib.cpu_count()
COUNTS = sorted({CORES, *(2**n for n in range(10) if 2**n <= CORES)})
VARIANTS = {  # options of all, and those of each variant; the first one is what the others are compared with
    "precision": ([], [["--precision", precision] for precision in ("float32", "mixed_bfloat16")]),
    "workers": (["--epochs", "4"], [["--workers", str(count)] for count in COUNTS]),
    "memory": (["--train-images", "2000", "--epochs", "1"], [["--max-trials", count] for count in ("6", "18", "30")]),
}


def main():
    common, variants = VARIANTS[sys.argv[1]]
    options = [*common, *sys.argv[2:]]
    rows = {" ".join(own): search(RANDOM_SEARCH, *options, *own) for own in variants}
    first, lines = next(iter(rows.values())), []
    for name, row in rows.items():
        pairs = list(zip(row["scores"], first["scores"]))
        speed = [f"{row['seconds']:.0f}", f"{first['seconds'] / row['seconds']:.2f}", f"{seconds_per_epoch(row):.2f}"]
        accuracy = f"{statistics.mean(row['scores']):.4f}", spread([a - b for a, b in pairs], "+.4f")
        same = f"{sum(a == b for a, b in pairs)} of {len(pairs)}"
        lines.append([name, *speed, row["memory"], sum(map(len, row["epochs"])), *accuracy, same])
    print(f"{first['machine']}\n\n{' '.join([RANDOM_SEARCH, *options])}\n")
    header = ["", "seconds", "times as fast", "seconds per epoch", "peak memory of each process, GB", "epochs"]
    print(table([*header, "mean val accuracy", "difference, trial by trial", "trials with the same digits"], lines))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in VARIANTS:
        sys.exit(__doc__)
    main()
