"""What a piece of work costs: seconds, and megabytes beyond those held before."""

import contextlib
import multiprocessing
import statistics
import sys
import time

import torch

from pythae_geometric.commands.models import DEVICE
from pythae_geometric.commands.tables import table

try:
    import resource
except ImportError:  # on Windows, where memory is not measured
    resource = None

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


def shown(megabytes):
    return "—" if megabytes is None else f"{megabytes:.0f} MB"


def in_turn(calls, rounds, seconds=0.0):
    """Median seconds of functions ``{name: function}``, over rounds in which each is called in
    turn: so they share the machine's weather. The first round is a warm-up, and says how many
    calls of a function take ``seconds``: so many are timed together."""
    times, counts = {name: [] for name in calls}, dict.fromkeys(calls, 1)
    for number in range(rounds + 1):
        for name, call in calls.items():
            synchronize()
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            synchronize()
            times[name].append((time.perf_counter() - start) / counts[name])
            if number == 0:
                counts[name] = max(1, int(seconds / times[name][0]))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def processes():
    """The context of processes of their own. On Linux a server that has imported torch forks them,
    which takes a moment where a new one takes seconds; CUDA does not survive a fork."""
    if DEVICE == "cuda" or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pythae_geometric", "pythae.pipelines"])
    return context


def alone(function, *arguments, limit=None):
    """The result of a function in a process of its own with one thread.

    Raises:
        multiprocessing.TimeoutError: if there is none after ``limit`` seconds.
    """
    with processes().Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply_async(function, arguments).get(limit)


def measure(make, arguments, small, repeats, limit=None):
    """What ``make(*arguments)()`` costs in a process of its own with one thread.

    Args:
        make: gives a function without arguments, that is measured.
        arguments: of ``make``.
        small: arguments of a small case, which loads what torch loads on first use.
        repeats: how often the function is called.
        limit: seconds after which it is given up, as in :func:`alone`.

    Returns:
        the least seconds of the processor, the megabytes of the first call beyond those held
        before it, and the last result.
    """
    return alone(_measure, make, arguments, small, repeats, limit=limit)


def _measure(make, arguments, small, repeats):
    make(*small)()
    run, costs = make(*arguments), []
    for _ in range(repeats):
        with measured() as figures:
            result = run()
        costs.append(figures)
    return min(f["processor_seconds"] for f in costs), costs[0]["megabytes"], result


def side_by_side(make, names, settings, methods):
    """Print a table of what methods cost, each in a process of its own with one thread.

    Args:
        make: ``make(method, *setting)`` gives a function, which is measured. It returns a number or
            a tensor, or None where there is nothing to compare.
        names: of the numbers of a setting. The last is the size of a batch, and small at first.
        settings: tuples of these numbers.
        methods: ``{method: repeats}``. All are compared with the first.
    """
    columns = "method", "ms", "times the first", "peak memory", "relative difference"
    print("One thread; least processor time, and peak memory above that before.\n")
    print("\n".join(table([*names, *columns], [])))
    for setting in settings:
        first = None
        for method, repeats in methods.items():
            small = method, *setting[:-1], 2
            seconds, memory, value = measure(make, (method, *setting), small, repeats)
            first = first or (seconds, value)
            cells = [method, f"{1e3 * seconds:.2f}", f"{seconds / first[0]:.2f}", shown(memory)]
            cells.append("" if value is None else f"{relative_difference(value, first[1]):.0e}")
            print(table([*map(str, setting), *cells], [])[0], flush=True)


def relative_difference(value, reference):
    value, reference = torch.as_tensor(value), torch.as_tensor(reference)
    return float((value - reference).abs().max() / reference.abs().max())
