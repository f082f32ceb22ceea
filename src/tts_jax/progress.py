"""The progress bar for `simulate(progress=...)`."""

from types import TracebackType

from tqdm import tqdm

from ._errors import check_type
from ._numbers import as_whole


class ProgressBar:
    """A line on the terminal with time left and, if the `steps` are known, steps per second.

    A context manager to hand to `simulate`:
    `with ProgressBar("SGD", steps=sgd.steps_until(taus)[-1]) as bar: simulate(..., progress=bar)`.
    Nothing is drawn where the output is not a terminal, and nothing stays there at the end.
    """

    def __init__(self, label: str, *, steps: int | None = None):
        check_type("label", label, str)
        self._total = 1.0 if steps is None else as_whole("steps", steps, least=0)
        self._begun = False
        plain = "{l_bar}{bar}| {elapsed}<{remaining}"
        rate = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
        self._bar = tqdm(
            total=self._total,
            desc=label,
            unit=" steps",
            unit_scale=True,
            leave=False,
            disable=None,  # only where the output is a terminal
            bar_format=plain if steps is None else rate,
        )

    def __call__(self, fraction: float) -> None:
        done = fraction * self._total
        if not self._begun:
            # The bar starts here: a resumed run begins with work of an earlier process, and the
            # first piece takes longer since it is compiled. Neither tells how fast the run is.
            self._begun = True
            self._bar.reset()
            self._bar.initial = done
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
