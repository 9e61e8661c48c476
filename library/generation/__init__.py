"""From prompts to pictures. Previews while training and the generator use the same code."""
