"""How NumPy is made fast: memory pages kept, worker threads, the BLAS thread count.

Nothing here knows what a model is. Three facts about NumPy on a CPU stand behind this file:

1. glibc returns large freed arrays to the operating system and fetches zeroed pages for the
   next one; training allocates the same large arrays every step, so it pays for the same page
   faults every step. `keep_memory_pages` tells the allocator to keep what it has.
2. NumPy's element-wise functions run on one thread, but release the interpreter lock: two
   Python threads, each with its own half of the work, use two cores (`run_parallel`).
3. While they do, matrix products must not start threads of their own (`blas_threads(1)`).
"""

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")

# glibc's names for the settings, from <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

THREAD_NAME = "minilm-worker"
BLOCK_BYTES = 512 * 1024  # a few arrays of this size fit in one core's second-level cache together
FEW_ROWS = 128  # from here on `x @ w.T` is the fastest
UNCOPIED = 2**16  # elements of a matrix that OpenBLAS multiplies where it is


def keep_memory_pages() -> bool:
    """Tell glibc to keep freed memory for the next allocation; True where it could be told.

    Blocks come from one growing heap (no mmap, one arena for all threads) that is not trimmed.
    Where the C library is another one, nothing changes but the speed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows refuses CDLL(None)
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in settings)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's (get, set) functions for its thread count; None where the BLAS is another."""
    try:
        # Looking a symbol up in NumPy's own extension module also searches the BLAS it links to.
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("64_", ""):
            try:
                get = library[f"{prefix}_get_num_threads{suffix}"]
                return get, library[f"{prefix}_set_num_threads{suffix}"]
            except AttributeError:
                continue
    return None


def get_blas_threads() -> int | None:
    """How many threads one matrix product may use; None where the BLAS does not tell."""
    functions = _openblas()
    return None if functions is None else functions[0]()


_blas_lock = threading.Lock()
_blas_counts: list[int] = []  # what it was before, then what each open block asks for


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Inside the block a matrix product uses `count` threads; no effect on a foreign BLAS.

    The count is one for the whole process. Where blocks of several threads overlap, the latest to
    begin decides, and only the last to end brings back what there was before.
    """
    functions = _openblas()
    if functions is None:
        yield
        return
    get, set_count = functions
    with _blas_lock:
        if not _blas_counts:
            _blas_counts.append(get())
        _blas_counts.append(count)
        set_count(count)
    try:
        yield
    finally:
        with _blas_lock:
            del _blas_counts[_blas_counts.index(count, 1)]
            set_count(_blas_counts[-1])
            if len(_blas_counts) == 1:
                _blas_counts.clear()


@cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    """Threads made once. `process` is part of the key since threads do not survive a fork."""
    return ThreadPoolExecutor(size, thread_name_prefix=THREAD_NAME)


def run_parallel(functions: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call every function, each in a thread of its own (the first in this one); their results.

    An exception in any of them is raised here, after all have stopped. Called from one of its own
    threads it runs the functions one by one: all threads may be taken.
    """
    if len(functions) < 2 or threading.current_thread().name.startswith(THREAD_NAME):
        return [function() for function in functions]
    pool = _pool(os.getpid(), len(functions) - 1)
    futures = [pool.submit(function) for function in functions[1:]]
    try:
        first = functions[0]()
    finally:
        for future in futures:  # wait before anything is raised: no thread outlives the call
            future.exception()
    return [first, *(future.result() for future in futures)]


def cores() -> int:
    """The number of processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def row_blocks(array: np.ndarray[Any, Any]) -> Iterator[slice]:
    """Slices of the first axis, each small enough that work on it stays in the cache.

    An element-wise formula of eight steps reads and writes its arrays eight times; done block by
    block, seven of those go to the cache instead of to memory.
    """
    rows = len(array)
    step = max(1, BLOCK_BYTES * rows // max(1, array.nbytes))
    for start in range(0, rows, step):
        yield slice(start, start + step)


@lru_cache(256)
def filled(length: int, value: float, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A read-only vector of equal numbers, kept, since every step asks for the same few.

    `x @ filled(n, 1.0, x.dtype)` is a sum by BLAS, which adds faster than NumPy's reduction.

    Shapes: () -> (N)
    """
    vector = np.full(length, value, dtype)
    vector.flags.writeable = False
    return vector


def times_transposed(x: np.ndarray[Any, Any], w: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """x wᵀ, where x often has few rows: tokens that are decoded together.

    OpenBLAS first copies w into an order of its own, which for few rows takes longer than the
    product. It copies less for (w xᵀ)ᵀ, and not at all for products as small as four rows by a
    part of w. On AVX-512, four rows and 8,192 outputs of width 256: 0.36 ms instead of 1.35.

    Shapes: (M, K), (N, K) -> (M, N)
    """
    rows, (outputs, width) = len(x), w.shape
    if rows < 2 or rows > FEW_ROWS or (rows <= 4 and w.size <= UNCOPIED):
        return x @ w.T
    if rows > 4:
        y = (w @ x.T).T
        return y if rows <= 16 else np.ascontiguousarray(y)  # column by column, as x should be next
    y = np.empty((rows, outputs), np.result_type(x, w))
    part = max(1, UNCOPIED // width)
    whole = outputs // part * part  # where whole parts end
    parts = w[:whole].reshape(-1, part, width).swapaxes(1, 2)
    np.matmul(x, parts, out=y[:, :whole].reshape(rows, -1, part).swapaxes(0, 1))
    if whole < outputs:
        np.matmul(x, w[whole:].T, out=y[:, whole:])
    return y


def random_mask(shape: tuple[int, ...], p: float, rng: np.random.Generator) -> Any:
    """A boolean array, each element False with probability p (to the nearest 1/65536).

    Four draws come out of each 64-bit random number: several times quicker than a float apiece.
    """
    count = math.prod(shape)
    words = rng.integers(0, 2**64, -(-count // 4), np.uint64)
    return (words.view(np.uint16)[:count] >= round(p * 2**16)).reshape(shape)


def erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """erf(x) = 2/√π ∫₀ˣ exp(-t²) dt for arrays, which NumPy lacks.

    The absolute error is below 2e-7 in float32, 1e-15 in float64, and 0 at 0.
    """
    flat = x.reshape(-1)
    y = _erf_by_erfc(flat) if x.dtype == np.float64 else _erf_by_tanh(flat)
    return y.reshape(x.shape)


def _erf_by_tanh(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """erf(x) = tanh(x Σ cₖ x²ᵏ) by Horner's rule: the quicker one, to float32's rounding."""
    x = np.clip(x, -5, 5)  # beyond, erf is ±1 to the last bit
    u = x * x
    first, *others, last = _tanh_coefficients()
    y = u * last
    for c in reversed(others):
        y += c
        y *= u
    y += first
    y *= x
    return np.tanh(y, out=y)


@cache
def _tanh_coefficients() -> list[float]:
    """c, with erf(x) = tanh(x Σ cₖ x²ᵏ) for |x| <= 5 to 7e-8.

    They are fitted to artanh(erf x) / x = ln((2 - erfc x) / erfc x) / 2x, each point weighted with
    how much of an error there comes through: x times the slope of tanh, 1 - erf² x.
    """
    x = 5 * np.sin(np.pi * (np.arange(400) + 0.5) / 800)
    erfc = np.array([math.erfc(value) for value in x])
    target = np.log((2 - erfc) / erfc) / (2 * x)
    weight = x * erfc * (2 - erfc)
    series = np.polynomial.Polynomial.fit(x * x, target, 6, domain=[0, 25], w=weight)
    return [float(c) for c in series.convert().coef]


def _erf_by_erfc(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """erf(x) = ±(1 - erfc(z)), z = |x|, and erfc(z) = exp(-z²) (1 + Σ cₖ sᵏ⁺¹), s = z / (z + 2).

    Exact to float64's rounding.
    """
    z = np.minimum(np.abs(x), 6)  # beyond, erf is 1 to the last bit
    s = z + 2
    np.divide(z, s, out=s)
    *others, last = _erfc_coefficients()
    y = s * last
    for c in reversed(others):
        y += c
        y *= s
    y += 1
    z *= z
    y *= np.exp(np.negative(z, out=z), out=z)
    return np.copysign(np.subtract(1, y, out=y), x, out=y)


@cache
def _erfc_coefficients() -> list[float]:
    """c, with exp(z²) erfc(z) = 1 + Σₖ₌₀ cₖ sᵏ⁺¹ for z >= 0, s = z / (z + 2), to rounding.

    s turns 0..∞ into 0..1, and as a function of s the left side is smooth: its interpolant at
    Chebyshev's nodes, here of values from math.erfc, converges geometrically.
    """
    n = 22
    s = (np.cos(np.pi * (np.arange(n) + 0.5) / n) + 1) / 2
    values = [(_scaled_erfc(2 * node / (1 - node)) - 1) / node for node in s]
    series = np.polynomial.Chebyshev.fit(s, values, n - 1, domain=[0, 1])
    return [float(c) for c in series.convert(kind=np.polynomial.Polynomial).coef]


def _scaled_erfc(z: float) -> float:
    """exp(z²) erfc(z); where these leave the range of floats, by the expansion of erfc at ∞."""
    if z < 26:
        return math.exp(z * z) * math.erfc(z)
    return (1 - 1 / (2 * z**2) + 3 / (4 * z**4) - 15 / (8 * z**6)) / (z * math.sqrt(math.pi))


keep_memory_pages()
