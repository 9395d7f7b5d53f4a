"""Temporary storage of generated images, and of the responses of the Responses API."""
