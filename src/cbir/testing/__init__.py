"""The public conformance tests for descriptors and index engines.

Each check raises `AssertionError` with the expectation; no test framework is needed::

    check_descriptor(MyDescriptor())
    check_index(lambda spec: create_index("somewhere-new.cbir", spec))
"""

from cbir.testing.descriptors import check_descriptor
from cbir.testing.indexes import check_index
from cbir.testing.samples import make_entry, sample_entries, unit

__all__ = ["check_descriptor", "check_index", "make_entry", "sample_entries", "unit"]
