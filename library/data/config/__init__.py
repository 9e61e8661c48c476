"""What to train on, as the user asks for it: options or a dataset file -> specs."""
