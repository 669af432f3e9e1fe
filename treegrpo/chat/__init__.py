"""The model's own chat template, rendered piece by piece so that history is never rendered again.

    prompt_ids | action (sampled ids, stop token included) | observation_ids | action | ...

The pieces side by side are what the template makes of the whole conversation. That is checked
when a `ChatFormat` is made, and a template for which it does not hold is refused: training on
ids other than the sampled ones is how re-tokenisation ruins a run.
"""

from treegrpo.chat.format import ChatFormat
from treegrpo.chat.template import ChatTemplateError, Tool

__all__ = ["ChatFormat", "ChatTemplateError", "Tool"]
