"""Numerical kernels in plain PyTorch: pooling, mean field, deformable convolution, rotated overlap, suppression."""
