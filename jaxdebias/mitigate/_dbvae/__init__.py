"""DB-VAE (Amini et al. 2019; facial expressions), in parts."""
