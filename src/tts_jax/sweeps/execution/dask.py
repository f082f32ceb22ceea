"""Units of work on the workers of a Dask cluster, on this machine or on many."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..._errors import argument_error
from ..errors import SweepError
from ..study.grid import Point
from ..study.study import Study
from .local import Done, Results
from .plan import Index, Layout, Plan

_AHEAD = 2
"""Units that a worker has at hand, so that it does not wait; more would only fill memory."""
_RETRIES = 3


@contextmanager
def client_of(cluster: Any) -> Iterator[Any]:
    """A `distributed.Client`: the one given, or one for "local:4" or a scheduler's address.

    **Raises:** `SweepError` if the extra `cluster` is not installed or nobody answers there.
    """
    try:
        import distributed
    except ImportError as error:
        raise SweepError("a cluster needs Dask: pip install 'tts-jax[cluster]'.") from error
    if isinstance(cluster, distributed.Client):
        yield cluster
        return
    if not isinstance(cluster, str):
        expected = 'a distributed.Client, "local:N" or an address such as "tcp://host:8786"'
        raise argument_error("cluster", expected, repr(cluster))
    kind, _, count = cluster.partition(":")
    if kind == "local":
        if not count.isdigit() or int(count) < 1:
            raise argument_error("cluster", '"local:N" with N workers', repr(cluster))
        local = distributed.LocalCluster(
            n_workers=int(count),
            threads_per_worker=1,
            dashboard_address=None,  # pyright: ignore[reportArgumentType]
            env={"JAX_ENABLE_X64": "1"},
        )
        with local, distributed.Client(local) as client:
            yield client
        return
    try:
        client = distributed.Client(cluster, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise SweepError(f"no Dask scheduler answers at {cluster}: {error}") from error
    with client:
        yield client


def workers_of(client: Any) -> int:
    """How many units can be computed at once, now."""
    return max(1, sum(client.nthreads().values()))


def on_cluster(plan: Plan, done: Done, client: Any) -> None:
    """Compute every unit of a plan on the workers, and hand each to `done` once, here.

    A unit whose worker dies is computed by another one.
    """
    import distributed

    # Sent with every unit: left with one worker, it would die with it.
    study, name = plan.layout.study, uuid.uuid4().hex
    waiting = iter(plan.units)
    under_way: dict[Any, Any] = {}

    def submit() -> Any:
        unit = next(waiting, None)
        if unit is None:
            return None
        points = plan.layout.points(unit)
        future = client.submit(
            compute, name, study, plan.layout.chunks, points, retries=_RETRIES, pure=False
        )
        under_way[future] = unit
        return future

    results = distributed.as_completed()

    def top_up() -> None:
        """Workers come and go: each is to have something at hand."""
        while len(under_way) < _AHEAD * workers_of(client):
            future = submit()
            if future is None:
                return
            results.add(future)

    top_up()
    for future in results:
        unit = under_way.pop(future)
        try:
            found = future.result()
        except distributed.KilledWorker as error:
            raise SweepError(f"a unit was lost with every worker that took it: {error}") from error
        done(unit, found)
        future.release()
        top_up()


_layouts: dict[str, Layout] = {}


def compute(name: str, study: Study, chunks: Index, points: list[Point]) -> Results:
    """A unit, on a worker, which keeps what it has compiled for the sweep of that name."""
    if name not in _layouts:
        _layouts.clear()
        _layouts[name] = Layout.of(study, chunks)
    return _layouts[name].runner(points)
