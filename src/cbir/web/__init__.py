"""The page and the HTTP answers."""
