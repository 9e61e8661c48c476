"""Caches of what is computed once, latents and text-encoder outputs: in memory or beside the images."""
