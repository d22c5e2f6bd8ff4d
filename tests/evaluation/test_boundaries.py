import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion import process
from hwdiff.evaluation.boundaries import (
    alignment_to_real,
    boundary_errors,
    even_boundary_errors,
    perfect_boundary_errors,
    true_boundaries,
)
from tests.conftest import write_dataset


def test_true_boundaries_ignore_what_comes_later():
    characters = np.array([0, 0, 1, 1, 1, 3, 3, 1, 3, 3, 4, 4])  # the dot of the i comes within the t
    assert true_boundaries(characters, "si to").tolist() == [2, 5, 10]


def test_errors_of_a_network_are_in_points(network, extractor, tmp_path):
    written = write_dataset(tmp_path / "writers.npz", 2)
    features = StyleFeatures(written, extractor, tmp_path)
    errors = boundary_errors(network, written, features, [0, 5], t=5)
    for index, found in zip((0, 5), errors, strict=True):
        assert len(found) == len(str(written.texts[index]).replace(" ", "")) - 1
        assert (found >= 0).all() and found.max() <= written.lengths[index]
    [alone] = boundary_errors(network, written, features, [5], t=5, seed=1)
    np.testing.assert_array_equal(errors[1], alone)
    [other] = boundary_errors(network, written, features, [5], t=5)
    assert not np.array_equal(other, alone)


def test_peoples_lines_are_refused(network, dataset, features):
    with pytest.raises(HwdiffError, match="not known letter by letter"):
        boundary_errors(network, dataset, features, [0], t=5)
    with pytest.raises(HwdiffError, match="not known letter by letter"):
        even_boundary_errors(dataset, 0)


class OneLine:
    texts = ("ab cd",)

    def characters(self, index):
        return np.repeat([0, 1, 3, 4], [4, 4, 8, 4])  # the space has no points of its own


def test_perfect_attention_of_cells():
    # The cells are at a, c and d, whose middles are at 4, 12 and 20: b begins at 5.33, c at 9.33, d at 16.
    np.testing.assert_allclose(perfect_boundary_errors(OneLine(), 0), [4 / 3, 4 / 3, 0])


def test_letters_spread_evenly():
    # Spread evenly, b begins at 4, c at 12 and d at 16; truly at 4, 8 and 16.
    np.testing.assert_allclose(even_boundary_errors(OneLine(), 0), [0, 4, 0])


def test_a_real_line_is_noised_to_the_level_that_is_asked_for(network, dataset, features):
    seen = []
    handle = network.register_forward_pre_hook(lambda module, given: seen.append(given[2].item()))
    alignment_to_real(network, dataset, features, 0, t=5)
    handle.remove()
    assert seen == pytest.approx([process.alpha_bars()[5].sqrt().item()])
