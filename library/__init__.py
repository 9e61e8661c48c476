"""Atelier's library: options, data, models, generation and training, used by the scripts at the top."""
