"""The parts of check-gpu.py: steps with limits of their own, the peer's measurements, targets, and the report."""
