import re

import pytest
from cases import CASES, run_of


@pytest.fixture(params=CASES, scope="session")
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="session", params=[False, True], ids=["default", "own"])
def run(request, case, digits, tmp_path_factory):
    """Each model, trained once with its default and once with a user's networks."""
    return run_of(case, request.param, digits, tmp_path_factory)


_refused = set()


@pytest.fixture
def refused(request):
    """Check that a bad input gives an error that names the argument, and count it."""

    def check(errors, words, call):
        with pytest.raises(errors) as raised:
            call()
        message = str(raised.value)
        assert re.search(words, message), message
        assert len(message.split()) >= 5, message  # a sentence, not a word
        _refused.add((request.node.nodeid, words))

    return check


def pytest_terminal_summary(terminalreporter):
    if _refused:
        terminalreporter.write_line(f"{len(_refused)} distinct bad inputs were refused.")


@pytest.fixture(scope="session")
def refusals():
    return _refused
