"""Images: sources of them, their ids, decoding, regions and thumbnails."""
