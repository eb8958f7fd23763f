"""Processes of tests: a server, which has imported torch once, forks them."""

import multiprocessing
import os
import sys
import tempfile

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pythae_geometric"])


def _child(stderr, function, arguments):
    with open(stderr, "w", encoding="utf-8") as f:
        os.dup2(f.fileno(), 2)
    function(*arguments)


def run_at_once(function, *arguments):
    """Run a function with each of several tuples of arguments, in processes at the same time.

    Returns:
        Exit code and stderr of each. The code is 1 after an error, and minus a signal's number.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [os.path.join(folder, str(i)) for i in range(len(arguments))]
        processes = [
            SERVER.Process(target=_child, args=(output, function, each))
            for output, each in zip(outputs, arguments, strict=True)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        texts = [open(output, encoding="utf-8").read() for output in outputs]
    return [(process.exitcode, text) for process, text in zip(processes, texts, strict=True)]


def run(function, *arguments):
    """Exit code and stderr of a function in a process of its own."""
    return run_at_once(function, arguments)[0]


def _execute(code, environment, arguments):
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})


def run_code(code, environment, *arguments):
    """Exit code and stderr of ``python -c code``, but that this package is imported already."""
    return run(_execute, code, environment, arguments)
