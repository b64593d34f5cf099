"""Images in: sources, decoding, thumbnails."""
