"""How a process computes on CPU: threads, numbers below the normal range, and memory kept between steps."""

import contextlib
import ctypes
import gc
import os
from functools import cache

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names that mallopt(3) has for them
_KEPT_BYTES = 1 << 29


def prepare_process(*, threads: int) -> None:
    """Set the threads of an operation and what makes CPU steps faster, with the same results in every process.

    Shares of a softmax fall below the normal range of floats, where arithmetic is ten times slower: they become zero.
    A training step frees and asks again for some hundred megabytes, which the allocator would hand back to the system
    each time (10,000 page faults a step were counted): it keeps up to half a gigabyte. Optimisers ask at every step
    whether there is a GPU, and Lightning has torch answer from the driver's library; where there is none, looking for
    that takes 0.07 ms each time.
    """
    _leave_imports_alone()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc goes without
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


@cache
def _leave_imports_alone() -> None:
    """Garbage collections pass over what importing made, once for a process: some 400,000 objects, all needed.

    They took a third to a half of the time in which a corpus of small objects is built.
    """
    gc.freeze()


@cache
def has_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 have kernels of their own on this type of device (``cpu``, ``cuda``).

    On a CPU without AVX-512 (or Arm's bfloat16 instructions) they are forty times slower than in float32, and
    ``torch.nn.LSTM`` raises.
    """
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
