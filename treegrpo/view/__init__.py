"""What a run looks like on the terminal: the tables it ends with."""

from treegrpo.view.report import Costs, GroupRow, before_after_table, cost_table

__all__ = ["Costs", "GroupRow", "before_after_table", "cost_table"]
