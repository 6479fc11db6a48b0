"""Slurm: a batch script that runs a job's supervisor on its first node, and an srun that it looks after."""
