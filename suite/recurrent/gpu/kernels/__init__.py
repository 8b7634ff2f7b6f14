"""Kernels for GPUs, compiled by Triton when a cell first runs; imported by name, so that nothing else needs Triton."""
