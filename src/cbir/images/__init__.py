"""Images: sources, ids, decoding, regions and thumbnails."""
