"""The page and the HTTP API, on one Flask application."""
