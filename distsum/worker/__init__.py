"""The worker process: it folds one task at a time, stores, and reports."""
