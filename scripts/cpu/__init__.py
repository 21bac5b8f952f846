"""The parts of check-cpu.py: files of random weights for the peers, one measuring program for each, and the table."""
