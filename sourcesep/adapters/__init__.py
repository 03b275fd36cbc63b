"""One module a kind of recording: reads it into a `Recording`, writes a `Separation`."""
