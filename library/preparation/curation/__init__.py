"""A page to look through a dataset, and the decisions made on it, carried out."""
