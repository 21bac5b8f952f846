"""What the scripts around the kernels of NVIDIA's GPUs share: their sources and the compilers."""
