"""What a run looks like to people: tables on the terminal, rollout trees on a page."""

from treegrpo.view.report import Costs, GroupRow, before_after_table, cost_table
from treegrpo.view.trees import render_trees

__all__ = ["Costs", "GroupRow", "before_after_table", "cost_table", "render_trees"]
