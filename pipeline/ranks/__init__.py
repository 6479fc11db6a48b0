"""The processes of one training: how they start, meet, and hear of each other's end."""
