"""Parts that diffrax lacks for flows this stiff: Rodas5P, and a root finder that converges."""
