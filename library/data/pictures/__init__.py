"""Image files -> pixels and masks."""
