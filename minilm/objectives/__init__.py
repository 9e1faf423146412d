"""What a model is trained to predict: arrays in, arrays out, an explicit random generator."""
