"""Distributions: points and normals (`densities`), and those made of bins (`histograms`)."""
