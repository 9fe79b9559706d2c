"""Bricks shared by models; they know shapes and know no paper.

Every brick takes an optional leading member axis on its weights and values. Weights are plain
trees, dotted name → tensor, made by functions that take a generator.
"""
