"""Blocks that come and go: weights wait in main memory, and are on the device while they are needed."""
