"""Training by backpropagation, for comparison: the only place that differentiates."""
