"""Whether memory grows from trial to trial: the peak of each process after 6, 18 and 30 short ones.

    python benchmarks/memory.py [any options of random_search_tuning.py]

As many processes as cores share the trials; with --workers 1, one has all of them. About 5 minutes, whatever else runs
on the machine. Linux only.
"""

from measuring import compare

if __name__ == "__main__":
    variants = {f"{count} trials": ["--max-trials", str(count)] for count in (6, 18, 30)}
    compare(__doc__, variants, "--train-images", "2000", "--epochs", "1")
