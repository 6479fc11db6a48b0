"""What castbank runs on: this machine, Slurm, Ray, Kubernetes. Nothing of ours is imported from here."""
