"""One retrieval experiment: queries -> rankings -> measures, as `cbir evaluate --in` does it."""

from cbir.experiment.comparing import Compared, compare_evaluations
from cbir.experiment.evaluating import Evaluation, evaluate
from cbir.experiment.protocols import Protocol, rank
from cbir.experiment.queries import Queries, describe_queries, query_labels

__all__ = [
    "Compared",
    "Evaluation",
    "Protocol",
    "Queries",
    "compare_evaluations",
    "describe_queries",
    "evaluate",
    "query_labels",
    "rank",
]
