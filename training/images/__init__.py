"""What happens to images between the data set and the model: random numbers, augmentation, mixing, loading.

The data sets themselves, as uint8 images with their splits, are `vitzoo/images`.
"""
