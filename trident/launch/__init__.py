"""The launcher, which starts Triton and the frontend and keeps them running."""
