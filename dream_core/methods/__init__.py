"""The methods: one file per family, each a short loop that reads like its papers' algorithm."""
