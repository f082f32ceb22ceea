"""How many runs share a machine: in turn, in lanes, over devices. No mathematics here."""
