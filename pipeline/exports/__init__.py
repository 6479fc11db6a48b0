"""What others load: folders and files made from a run's checkpoint."""
