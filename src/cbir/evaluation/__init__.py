"""Evaluates search with labelled queries, as `cbir evaluate` does."""

from cbir.evaluation.comparison import ComparedEvaluations, compare_evaluations
from cbir.evaluation.evaluating import evaluate
from cbir.evaluation.protocols import EvaluationOptions, Protocol, rank
from cbir.evaluation.queries import Queries, describe_queries, query_labels
from cbir.evaluation.result import Evaluation

__all__ = [
    "ComparedEvaluations",
    "Evaluation",
    "EvaluationOptions",
    "Protocol",
    "Queries",
    "compare_evaluations",
    "describe_queries",
    "evaluate",
    "query_labels",
    "rank",
]
