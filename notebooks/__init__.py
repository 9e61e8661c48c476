"""What the cells of notebooks/atelier.ipynb call: where it runs, commands, and what they made."""
