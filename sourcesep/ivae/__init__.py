"""The identifiable VAE: priors, maps and their fit. Knows no file and no MNE."""
