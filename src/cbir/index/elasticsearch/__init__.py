"""The Elasticsearch engine: records and vectors as documents on a server."""
