"""The report: a page of the best and worst sequences of each query."""
