"""Explore: deblurring, blur transfer and synthesis with a learned family of blur operators (Tran et al., CVPR 2021)."""
