"""The OpenAPI document, generated from the request and response models, and the page that shows it."""
