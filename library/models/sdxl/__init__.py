"""Stable Diffusion XL: two text encoders, and a U-Net that is told the picture's size."""
