"""Stable Diffusion 1.x and 2.x: two layouts of one class."""
