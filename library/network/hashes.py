from library.training.saving.hashes import network_hashes  # noqa: F401
