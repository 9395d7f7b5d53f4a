"""Calls to models: response streams, batches, choices and transcriptions."""
