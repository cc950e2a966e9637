"""Losses, rewards and advantages of the training stages: small pure functions, one published idea each.

Functions on single answers take plain Python values; functions on batches take tensors and are differentiable where a
gradient flows. None of them knows a model, a tokenizer or a trainer. Where a paper leaves a choice open the docstring
says PROPOSAL: that choice is ours.
"""
