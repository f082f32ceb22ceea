"""Where the runs of a sweep are kept, and what is read from there."""
