"""Which hardware, how many and with which settings: a question answered with a ranked list."""

from simserve.sweep.plan.answer import Plan, make_plan
from simserve.sweep.plan.question import Question

__all__ = ["Plan", "Question", "make_plan"]
