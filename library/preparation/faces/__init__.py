"""Faces found in pictures, turned upright and cut out."""
