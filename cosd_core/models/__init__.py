"""Language models: loading them, and running one over a batch of rows with a cache that rolls back."""
