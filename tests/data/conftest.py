import pytest

from hwdiff.data import synthetic
from hwdiff.data.dataset import Dataset, prepare


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A dataset of sixteen built-in writers, one form each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "WRITERS", 16)
        patch.setattr(synthetic, "FORMS_PER_WRITER", 1)
        path = tmp_path_factory.mktemp("writers") / "writers.npz"
        prepare(None, path, workers=1)
    return Dataset(path)
