"""The work-precision plot of flows of networks: docs/work-precision-networks.png."""

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
STYLES = {
    "tts_jax": ("#0072B2", "o", "-"),
    "LSODA": ("#D55E00", "s", "--"),
    "BDF": ("#009E73", "^", ":"),
    "CVODE": ("#E69F00", "D", (0, (5, 1, 1, 1, 1, 1))),
}


def draw(rows, sizes, epsilons):
    """Rows of the results by label; `sizes`: by the beginning of a label, the parameters."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        *(len(epsilons), len(sizes)), figsize=(10, 6), sharex=True, layout="constrained"
    )
    for line, epsilon in zip(axes, epsilons, strict=True):
        for ax, (size, count) in zip(line, sizes.items(), strict=True):
            curves = rows[f"{size}, epsilon = {epsilon:g}"]["curves"]
            for name, (colour, marker, style) in STYLES.items():
                runs = [run for run in curves[name] if run["error"] < 1e-2]
                ax.loglog(
                    [run["error"] for run in runs],
                    [run["ms"] for run in runs],
                    color=colour,
                    marker=marker,
                    linestyle=style,
                    markersize=4,
                    label=f"SciPy {name}" if name in ("LSODA", "BDF") else name,
                )
            ax.set_title(rf"{count} parameters, $\epsilon$ = {epsilon:g}")
            ax.grid(alpha=0.3)
        line[0].set_ylabel("time of one run, ms")
    axes[0, 0].invert_xaxis()  # the axes share it
    for ax in axes[-1]:
        ax.set_xlabel("achieved error")
    axes[0, 0].legend(fontsize=8)
    path = DOCS / "work-precision-networks.png"
    figure.savefig(path, dpi=150)
    print(f"drew {path.name}")
