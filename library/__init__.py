"""Atelier's library: options, data, models, generation and training, used by the scripts at the top."""

VERSION = "0.1.0"  # also in setup.py
