"""Learning problems: a network, a target or a sample, and the risk that training lowers."""
