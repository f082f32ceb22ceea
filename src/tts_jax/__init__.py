"""Simulation of the training dynamics of networks with two time scales.

The clock of every public function is the slow time tau = epsilon t. The public names stand in
`__init__.pyi`; each is imported when it is first used, so that `tts-jax --help` needs no JAX.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("tts-jax")
