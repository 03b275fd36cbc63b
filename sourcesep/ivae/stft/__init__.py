"""Models on the STFT: cells, their variances and matrices, directions, trained priors."""
