"""The two-layer tanh network on a sample in PyTorch, as its users write it: the mean square of the
residuals, and automatic derivatives. Without torch.compile, in 64-bit, with as many threads as the
process has cores."""

import importlib.util
import os

IS_THERE = importlib.util.find_spec("torch") is not None

INSTALL = "not installed: pip install torch --index-url https://download.pytorch.org/whl/cpu"


def functions(x, y, width):
    """Return PyTorch's version, and functions of flat parameters (a, b, w): the risk, its gradient
    and its Hessian, each a NumPy array."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    inputs, targets = torch.from_numpy(x.copy()), torch.from_numpy(y.copy())

    def risk(flat):
        a, b = flat[: width + 1], flat[width + 1 : 2 * width + 1]
        w = flat[2 * width + 1 :].reshape(width, -1)
        found = a[0] + torch.tanh(inputs @ w.T + b) @ a[1:]
        return torch.mean((found - targets) ** 2)

    def value(flat):
        with torch.no_grad():
            return risk(torch.from_numpy(flat)).numpy()

    def gradient(flat):
        at = torch.from_numpy(flat).requires_grad_()
        return torch.autograd.grad(risk(at), at)[0].numpy()

    def hessian(flat):
        return torch.func.hessian(risk)(torch.from_numpy(flat)).numpy()

    return torch.__version__, {"risk": value, "gradient": gradient, "Hessian": hessian}
