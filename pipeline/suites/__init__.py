"""Published suites: their prompt lists as they publish them, videos where their evaluators look, their results read."""
