"""What a person runs: one module per verb of the castbank command."""
