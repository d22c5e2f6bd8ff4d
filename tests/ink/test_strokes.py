import numpy as np

from hwdiff.ink import strokes
from tests.conftest import golden


def test_offsets_turn_y_round_and_flag_the_move_to_each_stroke():
    offsets, pen_up = strokes.to_offsets([(0, 0), (3, 4), (10, 4), (11, 5)], [True, False, True, False])
    assert offsets.tolist() == [[3, -4], [7, 0], [1, -1]]
    assert pen_up.tolist() == [False, True, False]


def test_merging_takes_the_straightest_pairs():
    # Ten offsets, so that a round merges two pairs of the five: those without any turn, (0, 1) and (6, 7).
    offsets = np.array([(1, 0), (2, 0), (0, 5), (5, 0), (3, 0), (0, 4), (0, 2), (0, 3), (4, 0), (-4, 1)])
    kept = strokes.merge_collinear(offsets, rounds=1)
    assert np.flatnonzero(~kept).tolist() == [0, 6]
    merged, pen_up = strokes.merge(offsets, np.array([True] + [False] * 5 + [True] + [False] * 3), kept)
    assert merged.tolist() == [[3, 0], [0, 5], [5, 0], [3, 0], [0, 4], [0, 5], [4, 0], [-4, 1]]
    assert pen_up.tolist() == [True, False, False, False, False, True, False, False]


def test_merging_keeps_the_path_and_about_half_of_the_points():
    offsets = np.random.default_rng(0).integers(-40, 40, (600, 2))
    kept = strokes.merge_collinear(offsets)
    merged, _ = strokes.merge(offsets, np.zeros(600, dtype=bool), kept)
    assert len(merged) == kept.sum() == 308  # 600 - 120 - 96 - 76
    np.testing.assert_array_equal(np.cumsum(merged, axis=0), np.cumsum(offsets, axis=0)[kept])


def test_nothing_is_drawn_at_pen_ups():
    parts = strokes.split_strokes([(1, 0), (1, 0), (5, 5), (0, 1)], np.array([True, False, True, False]))
    assert [part.tolist() for part in parts] == [[[1, 0], [2, 0]], [[7, 5], [7, 6]]]


def test_padding_is_no_move_with_the_pen_up():
    offsets, pen_up = strokes.pad([np.ones((2, 2))], [np.zeros(2)], 4)
    assert offsets[0].tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert pen_up[0].tolist() == [0, 0, 1, 1]


def test_preprocessing_equals_the_authors(shared, iam):
    from hwdiff.data.iam import Source, read_files
    from hwdiff.data.lines import Report
    from hwdiff.ink.formats import parse_points

    arrays = golden(shared / "golden" / "preprocessing.npz")
    wanted = {name.removesuffix(".strokes") for name in arrays if name.endswith(".strokes")}
    for name, content in read_files(Source(iam).strokes, ".xml", Report()):
        line = name.rpartition("/")[2].removesuffix(".xml")
        if line in wanted:
            wanted.remove(line)
            recorded, pen_up = strokes.to_offsets(*parse_points(content))
            offsets, pen_up = strokes.merge(recorded, pen_up, strokes.merge_collinear(recorded))
            pen_up[0] = True
            expected = arrays[f"{line}.strokes"]
            np.testing.assert_allclose(offsets / strokes.scale_of(offsets), expected[:, :2], atol=1e-6)
            np.testing.assert_array_equal(pen_up, expected[:, 2])
        if not wanted:
            break
    assert not wanted
