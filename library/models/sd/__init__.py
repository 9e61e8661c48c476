"""Stable Diffusion 1.x: one U-Net, one CLIP text encoder, one VAE."""
