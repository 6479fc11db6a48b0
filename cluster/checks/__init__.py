"""What ``castbank doctor`` asks of the places where jobs run; nothing here changes anything there."""
