"""Encoder, decoder and p(z|u) as networks: bounds, training, and the choice among maps."""
