"""What a video is like whoever it shows: true to its prompt, like real ones, moving, steady."""
