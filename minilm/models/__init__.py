"""One self-explaining file per model."""
