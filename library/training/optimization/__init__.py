"""Optimizers, their schedules and steps, and what follows the weights they train: averages and ledger."""
