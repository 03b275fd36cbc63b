"""What `ComponentAnalysis` is made of."""
