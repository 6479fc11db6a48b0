"""Published suites: their prompt lists as published, videos where their evaluators look, their results read."""
