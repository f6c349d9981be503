"""Language models: loading them, and running them on batches of rows with caches that roll back."""
