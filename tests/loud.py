"""An activation that must not be reached: what is wrong is told before anything is computed."""

from typing import ClassVar

import tts_jax as tts


class Loud(tts.AbstractActivation):
    """Fails the test if it is evaluated or traced."""

    eta: float = 0.1
    knots: ClassVar = (-0.5, 0.0, 0.5)
    degree: ClassVar = 3
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z):
        raise AssertionError("reached the activation")
