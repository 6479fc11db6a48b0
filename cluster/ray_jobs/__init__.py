"""Ray: a job of its job server that runs a job's supervisor; a training's ranks are placed by Ray Train."""
