"""Stories of many shots with a recurring cast: read as others write them, and planned for a bank."""
