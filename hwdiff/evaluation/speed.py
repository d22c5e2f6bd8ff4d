"""How long evaluating, training and the Geometry Score take on this machine."""

import json
import tempfile
import time
from itertools import islice
from pathlib import Path

import gudhi
import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from hwdiff.data.batches import Lines, bucket_length, training_order
from hwdiff.data.dataset import Dataset
from hwdiff.data.excerpts import Excerpts
from hwdiff.diffusion import process
from hwdiff.evaluation import geometry
from hwdiff.model.config import STYLE_SHAPE
from hwdiff.model.unet import UNet
from hwdiff.training import optimizers
from hwdiff.training.config import TrainingConfig
from hwdiff.training.distributed import Processes, first_process, launch
from hwdiff.training.objective import Draws, accumulate_gradients, draw, training_objective

MIDDLING_POINTS = 320


def network_inputs(count: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Made-up strokes, text, noise level and style, as `UNet` takes them, of lines of a length in points."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, length, 2, generator=generator),
        torch.randint(3, 70, (count, length // 11), generator=generator),
        torch.full((count, 1, 1), 0.5),
        torch.rand(count, *STYLE_SHAPE, generator=generator),
    )


def seconds_of_writing(network: UNet, evaluations: int) -> float:
    """About how long a network on the CPU takes for so many evaluations of a line each, with one thread.

    It is reckoned from a few evaluations of one line of 320 points, about the middle of IAM's.
    """
    inputs = network_inputs(1, MIDDLING_POINTS)
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(5):
                began = time.perf_counter()
                network(*inputs, attention=False)
                times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return evaluations * min(times)


def training_rate(
    dataset: Dataset, config: TrainingConfig, device: str | torch.device, *, steps: int = 4
) -> tuple[float, float]:
    """(seconds a step, points a second) of all processes that train together; padding does not count.

    Batches are the dataset's; only the style features are random. A step is all of it: forward, backward,
    exchange of gradients, clipping, optimizer.
    """
    device = torch.device(device)
    processes = Processes(device)
    lines = Lines(dataset, _RandomStyle(), np.arange(len(dataset)), device)
    network = UNet(config.model).to(device).train()
    objective = training_objective(network, config, processes)
    made = optimizers.make_optimizers(network, config, processes)
    generator, alpha_bar = torch.Generator(device).manual_seed(0), process.alpha_bars()

    # Real batches, made before the clock starts.
    points, start, terms = 0, 0.0, torch.zeros(2)
    order = training_order(
        Excerpts(dataset, config.seed), dataset.split("train"), config.batch_size, seed=config.seed
    )
    batches = []
    for indices, spans in islice(order, steps):
        length = bucket_length(spans[:, 1] - spans[:, 0])
        points += int((spans[:, 1] - spans[:, 0]).sum())
        part = processes.part(len(indices))
        batches.append((part, length, lines.batch(indices[part], length, spans[part])))

    # Only the last pass counts. In the first a CPU meets the lengths that come, and a GPU compiles them; in
    # the next a GPU records CUDA graphs.
    for _ in range(4 if device.type == "cuda" else 2):
        terms.sum().item()
        start = time.perf_counter()
        for part, length, batch in batches:
            shape, style_shape = (config.batch_size, length, 2), (config.batch_size, *STYLE_SHAPE)
            draws = draw(shape, style_shape, config, alpha_bar, generator)
            own = Draws(*(drawn[part] for drawn in draws))
            network.zero_grad()
            terms = accumulate_gradients(objective, batch, own, config.precision)
            optimizers.clip_gradients(network, config.clipping)
            for optimizer in made.values():
                optimizer.step()
    terms.sum().item()
    seconds = time.perf_counter() - start
    return seconds / steps, points / seconds


def shared_training_rate(
    dataset: Dataset, config: TrainingConfig, device: torch.device, *, count: int
) -> tuple[float, float]:
    """As `training_rate`, of `count` processes that share each batch, started as `hwdiff train` does."""
    with tempfile.TemporaryDirectory() as folder:
        launch(_measure_and_write, (str(dataset.path), config, device.type, f"{folder}/rate"), count, device)
        return tuple(json.loads(Path(folder, "rate").read_text()))


def _measure_and_write(dataset, config, device, out):
    rate = training_rate(Dataset(dataset), config, device)
    if first_process():
        Path(out).write_text(json.dumps(rate))
    return 0


class _RandomStyle:
    """Style features of no line, for measuring."""

    def half(self, indices):
        return torch.rand(len(indices), *STYLE_SHAPE, generator=torch.Generator().manual_seed(0)).half()

    def __getitem__(self, indices):
        return self.half(indices).float()


def geometry_seconds(X: np.ndarray, sets: int, plain_sets: int = 3) -> tuple[float, float]:
    """Seconds a set of landmarks that the Geometry Score of points takes: (ours on all cores, the plain way).

    X: (N, d) the points.
    sets, plain_sets: how many sets of landmarks both are measured over.
    """
    start = time.perf_counter()
    geometry.mrlt(X, n=sets, landmarks=min(geometry.LANDMARKS, len(X)))
    ours = (time.perf_counter() - start) / sets
    start = time.perf_counter()
    for seed in range(plain_sets):
        _plain_living_times(X, seed)
    return ours, (time.perf_counter() - start) / plain_sets


def _plain_living_times(X, seed):
    """As the score's authors do it: all distances of each set computed, sorted and handed to GUDHI."""
    X = X.astype(np.float64)
    landmarks = np.random.default_rng(seed).choice(len(X), min(geometry.LANDMARKS, len(X)))
    table = cdist(X, X[landmarks])
    neighbours = [[(landmark, row[landmark]) for landmark in np.argsort(row)] for row in table]
    complex_ = gudhi.WitnessComplex(nearest_landmark_table=neighbours)
    alpha_max = geometry.default_gamma(len(X)) * table.max()
    tree = complex_.create_simplex_tree(max_alpha_square=alpha_max, limit_dimension=geometry.CORNERS - 1)
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=False)
