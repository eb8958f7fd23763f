import pytest
from cases import CASES, run_of


@pytest.fixture(params=CASES, scope="session")
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="session", params=[False, True], ids=["default", "own"])
def run(request, case, digits, tmp_path_factory):
    """Each model, trained once with its default and once with a user's networks."""
    return run_of(case, request.param, digits, tmp_path_factory)
