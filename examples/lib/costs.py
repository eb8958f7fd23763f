"""What a piece of work costs: seconds, and megabytes beyond those held before."""

import contextlib
import multiprocessing
import statistics
import sys
import time

import torch

try:
    import resource
except ImportError:  # on Windows, where memory is not measured
    resource = None

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On a machine that others use too, wall time says little.
SECONDS = "wall_seconds" if DEVICE == "cuda" else "processor_seconds"


@contextlib.contextmanager
def measured():
    """Seconds (wall time, and of the processor) and megabytes of a block, in a dictionary that is
    filled when the block ends. On CUDA the memory is the device's; None where it is not known."""
    figures = {}
    before = peak(reset=True)
    start, busy = time.perf_counter(), time.process_time()
    yield figures
    synchronize()
    figures["wall_seconds"] = time.perf_counter() - start
    figures["processor_seconds"] = time.process_time() - busy
    figures["megabytes"] = None if before is None else max(0.0, peak() - before)


def peak(reset=False):
    """The largest memory of this process so far, in megabytes; since the last ``reset`` on Linux
    and on CUDA. None where it is not known."""
    if DEVICE == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e6
    with contextlib.suppress(OSError, KeyError):  # Linux
        if reset:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmHWM"].split()[0]) / 1e3
    if resource is None:
        return None
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def in_turn(calls, rounds):
    """Median seconds of functions ``{name: function}``, over rounds of one call of each: so they
    share the machine's weather. The first round is a warm-up."""
    times = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            synchronize()
            start = time.perf_counter()
            call()
            synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def shown(megabytes):
    return "—" if megabytes is None else f"{megabytes:.0f} MB"


def alone(function, *arguments):
    """The result of a function in a process of its own with one thread, and the megabytes that it
    takes beyond those of the idle process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_alone, (function, arguments))


def _alone(function, arguments):
    torch.set_num_threads(1)
    with measured() as figures:
        result = function(*arguments)
    return result, figures["megabytes"]


def measure(make, arguments, small, repeats):
    """What ``make(*arguments)()`` costs in a process of its own with one thread.

    Args:
        make: gives a function without arguments, that is measured.
        arguments: of ``make``.
        small: arguments of a small case, which loads what torch loads on first use.
        repeats: how often the function is timed.

    Returns:
        the least seconds of the processor, the megabytes of the first call beyond those held
        before it, and its result.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (make, arguments, small, repeats))


def _measure(make, arguments, small, repeats):
    torch.set_num_threads(1)
    make(*small)()
    run = make(*arguments)
    with measured() as figures:
        result = run()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds), figures["megabytes"], result
