"""From shards to an identity bank: fine-tuning, generation, evaluation."""
