"""What a picture is measured by: the losses, and the terms that the objective is the sum of."""
