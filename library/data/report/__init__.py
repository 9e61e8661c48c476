"""The dataset page: one HTML file, whole in itself, that shows what a model will see."""
