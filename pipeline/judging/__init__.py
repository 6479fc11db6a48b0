"""Who is recognisable in a video, in numbers and on a page."""
