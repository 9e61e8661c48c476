"""Optimizers and their schedules, a step of theirs, and the weights they move."""
