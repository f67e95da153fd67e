"""Networks. They know nothing of files, options or training."""
