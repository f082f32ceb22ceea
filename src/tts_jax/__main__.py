"""`python -m tts_jax` is the command `tts-jax`."""

from .cli import command

command()
