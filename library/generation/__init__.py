"""From prompts to pictures. Previews in training and the generator share this code."""
