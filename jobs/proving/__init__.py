"""The small-scale proof: who plays, what is asked for, what is compared, how it is scored and shown."""
