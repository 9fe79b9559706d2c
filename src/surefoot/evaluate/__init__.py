"""Predictions against labels: how accurate, and are the error bars true.

Comes in: numpy arrays, one entry per point (a graph's energy, a force component, a barrier):
residuals = label − prediction, standard deviations, groups, and for ensembles the members'
predictions. Goes out: numbers and small frozen dataclasses, in the units that came in, and the
global factors that make error bars true. Knows no model, no torch, no ase, no file. May import
numpy and scipy only.

    accuracy     MAE and RMSE, in total and by type
    scoring      log-score and CRPS of Gaussian error bars, CRPS of ensembles
    calibration  coverage, calibration error, miscalibration area, rank correlation, sharpness
    reliability  ENCE beside its simulated reference
    pit          where labels fall in their predicted distributions
    ranking      sparsification and AUROC of any score
    multivariate forces with a 3×3 covariance
    strata       the same figures for each kind of point
    intervals    bootstrap intervals that respect groups
    recalibrate  one factor per quantity, also from out-of-fold members
    quantiles    conformal and isotonic intervals, also by kind
    directness   what forces lack that are no gradient: rotations, a symmetric Jacobian
    oc20         the figures of OC20's tasks, and what is handed in to its leaderboard
    scores       all of these about one quantity, each with its interval
"""
