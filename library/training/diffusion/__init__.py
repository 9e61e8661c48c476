"""The maths of diffusion training: noise, objectives (noisy picture and target), losses and weightings."""
