"""How a sweep is computed: its plan, its cost, on devices or on a cluster."""
