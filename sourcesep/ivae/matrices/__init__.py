"""How a matrix is found: starts, what EEG adds, and matrices with noise in closed form."""
