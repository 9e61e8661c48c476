"""What happens before the first step: checks, the model in its place, caches, loaders."""
