"""The public conformance kit: what every descriptor and every engine of an index must do.

Each check raises `AssertionError` with what was expected; none needs a test framework::

    check_descriptor(MyDescriptor())
    check_index(lambda spec: create_index("somewhere-new.cbir", spec))
"""

from cbir.testing.descriptors import check_descriptor
from cbir.testing.indexes import check_index
from cbir.testing.samples import make_entry, sample_entries, unit

__all__ = ["check_descriptor", "check_index", "make_entry", "sample_entries", "unit"]
