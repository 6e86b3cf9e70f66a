"""Sets up TensorFlow, Keras and matplotlib, whatever the environment and the home directory hold for other programs."""

import contextlib
import logging
import os
import platform
import tempfile
import warnings
from pathlib import Path

from tuning import process

# What other programs set for these libraries changes results or breaks them. So all of it is dropped, but for what says
# which resources to use. keras.json and matplotlibrc are not read: an empty folder is where they would be.
_PREFIXES = ("TF_", "KERAS_", "ONEDNN_", "DNNL_", "MPL", "MATPLOTLIB")
_KEPT = {
    "KERAS_HOME", "MPLCONFIGDIR", "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR",
    "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS",
}
for _name in [name for name in os.environ if name.startswith(_PREFIXES) and name not in _KEPT]:
    del os.environ[_name]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as a Python exception
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # likewise

warnings.resetwarnings()  # PYTHONWARNINGS=error would make an error of any library's deprecation
for _category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
    warnings.simplefilter("ignore", _category)
logging.getLogger("matplotlib").setLevel(logging.ERROR)

_before = {name: os.environ.get(name) for name in ("KERAS_HOME", "XDG_CONFIG_HOME")}
with process.stderr_off(), tempfile.TemporaryDirectory() as _empty:
    os.environ |= dict.fromkeys(_before, _empty)
    with contextlib.chdir(_empty):
        import matplotlib  # before Keras, which imports it as well
    import keras
    import keras_tuner as kt
    import numpy as np
    import tensorflow as tf
for _name, _value in _before.items():
    del os.environ[_name]
    if _value is not None:
        os.environ[_name] = _value

matplotlib.rcdefaults()
tf.get_logger().setLevel("ERROR")  # it warns of a graph for each trial, which is what a search needs

# Same seed, same result, digit for digit.
tf.config.experimental.enable_op_determinism()

# Private, and the only way: to sum the gradients of several devices, TensorFlow registers a function for good, and with
# it the graph of each training: 16 MB a trial (benchmarks/memory.py). One device has nothing to sum.
keras.optimizers.Optimizer._all_reduce_sum_gradients = lambda self, grads_and_vars: grads_and_vars

gpus = tf.config.list_physical_devices("GPU")
for _gpu in gpus:  # several processes may share it
    tf.config.experimental.set_memory_growth(_gpu, True)


def _cpu():
    """What Linux says of the first processor: a dictionary; an empty one on other systems."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().partition("\n\n")[0].splitlines() if path.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def fastest_precision():
    """The dtype policy with the fastest training step on this hardware, by asking the hardware.

    A CPU with native bfloat16 instructions trains a small CNN 1.2 to 1.5 times as fast with them; without them bfloat16
    is emulated and slow. GPUs have tensor cores for bfloat16 from compute capability 8.0 on, for float16 from 7.0 on.
    """
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & set(_cpu().get("flags", "").split()) else "float32"


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # no such on macOS


# A small CNN's step in bfloat16 gains more from two operations at a time, such as the two gradients of a convolution,
# than from a second core for each of them (benchmarks/precision.py).
if fastest_precision() == "mixed_bfloat16" and not gpus and "TF_NUM_INTRAOP_THREADS" not in os.environ:
    tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // 2))


def hardware():
    """What this process runs on: the CPU's name, its cores as the system counts them, and the names of the GPUs."""
    details = map(tf.config.experimental.get_device_details, gpus)
    return {
        "cpu": _cpu().get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [each.get("device_name", "GPU") for each in details],
    }


def versions():
    """The versions of Python and of the packages that a result depends on."""
    packages = {module.__name__: module.__version__ for module in (tf, keras, kt, np)}
    return {"python": platform.python_version(), **packages}
