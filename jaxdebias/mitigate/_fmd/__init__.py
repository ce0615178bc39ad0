"""Fast Model Debias (Chen et al. 2023), in parts."""
