"""JAX blind image deconvolution: the sharp image and the blur kernel from a photo blurred by camera shake."""

__version__ = "0.1.0"
