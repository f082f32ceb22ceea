"""Figures of training with two rates, a file each, drawn by `tts-jax figures`.

Those up to "epsilon-order" are of P. Marion and R. Berthier, "Leveraging the two-timescale regime
to demonstrate convergence of neural networks", NeurIPS 2023, arXiv 2304.09576. The others are of
networks of several inputs, and name their sources.

A figure is a module with three functions: `data(run)` simulates and returns an xarray Dataset,
`plot(data)` draws it and returns pictures by file name, and `rows(data)` holds what was measured
against what is expected. They import the public face of tts_jax only.
"""

FIGURES = (
    "notations",
    "limit-sketch",
    "proof-sketch",
    "two-timescale",
    "equal-steps",
    "epsilon-boxplot",
    "two-dimensions",
    "ten-dimensions",
    "relu",
    "epsilon-order",
    "plateau",
    "relu-invariants",
    "learning-order",
    "fast-link",
    "varpro",
)
