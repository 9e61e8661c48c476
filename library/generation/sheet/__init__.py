"""Pages and grids of pictures that were drawn."""
