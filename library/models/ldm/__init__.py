"""Latent diffusion: what families with a U-Net, CLIP text encoders and a VAE share. Layouts say the rest."""
