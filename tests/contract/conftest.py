import pytest
from cases import CASES, run_once


@pytest.fixture(params=CASES, scope="session")
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="session")
def run_of(digits, tmp_path_factory, worker_id):
    """A function that gives the training of a case, which is done once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":  # one of several, whose own folders are in one
        shared = shared.parent
    return lambda case, own_networks=False: run_once(case, own_networks, digits, shared)


@pytest.fixture(scope="session", params=[False, True], ids=["default", "own"])
def run(request, case, run_of):
    """Each model, trained once with its default and once with custom networks."""
    return run_of(case, request.param)
