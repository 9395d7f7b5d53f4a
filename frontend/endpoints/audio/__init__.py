"""Endpoints for transcription, translation and speech."""
