"""Who and what is drawn: the cast out of a bank or pictures, who is where over time, and diffusers' object."""
