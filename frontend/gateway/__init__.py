"""What a gateway does besides the API itself: metrics, health and information about the server."""
