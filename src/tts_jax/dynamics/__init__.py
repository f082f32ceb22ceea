"""The ways for parameters to move in slow time.

The names stand in `__init__.pyi`, and are imported when they are first used: few runs need diffrax,
which takes longer to import than a run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
