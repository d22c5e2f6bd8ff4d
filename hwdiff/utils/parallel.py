"""Tasks in several processes."""

from collections.abc import Iterable, Iterator

from joblib import Parallel

IDLE_SECONDS = 5  # after which a worker ends: if its parent was killed, nobody else ends it


def in_parallel(tasks: Iterable, workers: int) -> Iterator:
    """The results of some joblib.delayed calls, in their order.

    workers: processes, -1 for one a core.
    """
    return Parallel(
        n_jobs=workers,
        return_as="generator",
        pre_dispatch="2*n_jobs",
        batch_size=1,
        idle_worker_timeout=IDLE_SECONDS,
    )(tasks)
