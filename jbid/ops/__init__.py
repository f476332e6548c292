"""Operations on images and kernels: no network, no files."""
