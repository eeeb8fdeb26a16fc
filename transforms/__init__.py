"""Transforms: pure kernels over arrays first, their Beam wiring last."""
