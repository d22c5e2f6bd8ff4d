from hwdiff.evaluation import speed
from hwdiff.training.config import preset
from tests.conftest import TINY


def test_training_is_measured_in_one_process_and_in_two(dataset):
    config = preset("smoke", batch_size=4, steps=1)
    assert config.model == TINY
    alone = speed.training_rate(dataset, config, "cpu")
    together = speed.shared_training_rate(dataset, config, speed.torch.device("cpu"), count=2)
    for seconds, points in (alone, together):
        assert seconds > 0
        mean = points * seconds / config.batch_size
        assert 20 < mean < 488  # of a line, padding not counted
