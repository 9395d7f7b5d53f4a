"""Calls to models in the words of a task: response streams, batches, choices."""
