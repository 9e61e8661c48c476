"""The training loop, its tasks, and what a run writes."""
