"""What more processes gain over one: the same random search with 1, 2, 4, ... of them, up to the cores there are.

    python benchmarks/workers.py [any options of random_search_tuning.py]

With four epochs all trials take the same time; a whole search is in speed.py. A few minutes for each number; nothing
else should run on the machine. Linux only.
"""

import joblib

from measuring import compare

if __name__ == "__main__":
    cores = joblib.cpu_count()
    counts = sorted({cores, *(2**n for n in range(10) if 2**n <= cores)})
    compare(__doc__, {f"--workers {count}": ["--workers", str(count)] for count in counts}, "--epochs", "4")
