"""What a sweep computes: its grid, and its description as tables and files."""
