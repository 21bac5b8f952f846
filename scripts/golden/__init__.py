"""The parts of make-golden.py, one family each."""
