"""Text recognition in images (OCR)."""
