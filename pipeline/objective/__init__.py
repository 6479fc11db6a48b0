"""What training minimises: noise, the losses and the networks they need."""
