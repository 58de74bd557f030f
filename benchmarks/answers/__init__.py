"""What `benchmarks/questions.py` runs, one group of questions a file."""
