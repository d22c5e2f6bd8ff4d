import pytest

from tests.conftest import write_dataset


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A dataset of sixteen built-in writers, one form each."""
    return write_dataset(tmp_path_factory.mktemp("writers") / "writers.npz", 16)
