"""Units of work on the workers of a Dask cluster, on this machine or on many."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..._errors import argument_error
from ..errors import SweepError
from ..study.grid import Point
from .local import Done
from .plan import Plan
from .runner import Results, Runner
from .structure import Settings

_AHEAD = 2
"""Units that a worker has at hand, so that it does not wait; more would only fill memory."""
_RETRIES = 3
_PATIENCE = 10.0
"""Seconds that a scheduler has to answer."""


@contextmanager
def client_of(cluster: Any) -> Iterator[Any]:
    """Yield a `distributed.Client`: the one given, or one for "local:4" or a scheduler's address.

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
        client = distributed.Client(cluster, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise SweepError(f"no Dask scheduler answers at {cluster}: {error}") from error
    with client:
        yield client


def workers_of(client: Any) -> int:
    """Return how many units can be computed at once, now."""
    return max(1, sum(client.nthreads().values()))


def on_cluster(plan: Plan, runner: Runner, done: Done, client: Any) -> None:
    """Compute every unit of a plan on the workers, each with a runner like this one, and hand each
    to `done` once, here.

    A unit whose worker dies is computed by another one. An error, or an interrupt, drops the units
    under way.
    """
    import distributed

    # The settings go with every unit: left with one worker, they would die with it.
    name = uuid.uuid4().hex
    waiting = iter(plan.units)
    under_way: dict[Any, Any] = {}

    def submit() -> Any:
        unit = next(waiting, None)
        if unit is None:
            return None
        points = plan.layout.points(unit)
        given = (name, runner.settings, runner.shared, points)
        future = client.submit(compute, *given, retries=_RETRIES, pure=False)
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

    try:
        top_up()
        for future in results:
            unit = under_way[future]
            try:
                found = future.result()
            except distributed.KilledWorker as error:
                raise SweepError(
                    f"a unit was lost with every worker that took it: {error}"
                ) from error
            done(unit, found)
            del under_way[future]
            future.release()
            top_up()
    finally:
        # After an error or an interrupt: nobody waits for the others.
        if under_way:
            client.cancel(list(under_way))


_runners: dict[str, Runner] = {}


def compute(name: str, settings: Settings, shared: tuple[str, ...], points: list[Point]) -> Results:
    """Return what the runs of a unit leave, on a worker.

    It keeps the settings of the sweep of that name as they came first, so that their numbers go to
    the device once.
    """
    if name not in _runners:
        _runners.clear()
        _runners[name] = Runner(settings, shared)
    return _runners[name](points)
