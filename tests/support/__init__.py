"""What tests and benchmarks share: whole Tridents to run, recordings, pictures, tiny models of random weights."""
