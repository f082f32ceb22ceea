"""`python -m tts_jax` is the command `tts-jax`."""

import sys

from .cli import main

sys.exit(main())
