"""What bfloat16 gains over float32, and whether it costs accuracy: the default random search in each precision.

    python benchmarks/precision.py [any options of random_search_tuning.py]

As many processes as cores, with one thread each, as by default; --epochs 4 is enough for the time alone. A whole search
in each precision takes up to an hour; nothing else should run on the machine. Linux only.
"""

from measuring import compare

if __name__ == "__main__":
    compare(__doc__, {precision: ["--precision", precision] for precision in ("float32", "mixed_bfloat16")})
