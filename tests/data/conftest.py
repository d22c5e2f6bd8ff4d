import pytest

from hwdiff.data.dataset import Dataset
from tests.conftest import write_dataset


@pytest.fixture(scope="session")
def written(once):
    """A dataset of sixteen built-in writers, one form each."""
    return Dataset(once("writers.npz", lambda path: write_dataset(path, 16)))
