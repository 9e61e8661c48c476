"""The maths of diffusion training: what is drawn, what the model should give, what an error counts."""
