"""Networks of the methods, in Flax, and functions of pretrained weights.

Networks of a deep image prior take one image (h, w, c) without a batch axis; trained networks have a leading one.

Modules:
    skip, mlp, siren: image and kernel networks of deep image priors.
    kernel_gan, resnet, corrector: kernel generator, learned initializer and kernel corrector.
    kernel_wizard, gated_wizard, wizards: blur-operator families.
    stylegan2, text_lines: generators of images.
    vgg: features of the perceptual distance.
    layers, matmul_conv: building blocks.
"""
